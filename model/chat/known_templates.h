// The chat templates of Qwen's families under names of their own (--chat-template NAME), for checkpoints that come
// without one. Written after their published behaviour; tests compare them with what the published ones render.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::model {

struct KnownTemplate {
  std::string name;
  std::string source;         // Jinja
  bool bodies_apart = false;  // Qwen v1 encodes each message's body apart from its header
};

const std::vector<KnownTemplate>& known_templates();
const KnownTemplate* find_known_template(std::string_view name);  // null: none has that name

}  // namespace lorikeet::model
