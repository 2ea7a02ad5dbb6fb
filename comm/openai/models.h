// The answers of /v1/models.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::comm {

struct ServedModel {
  std::string id;
  std::string root;    // the directory that it is read from
  std::string parent;  // the base model of an adapter; empty: it is a base model
};

// Of the base model.
struct ModelNames {
  std::string first;              // the one that it goes by
  std::vector<std::string> more;  // under which it is served, too

  bool hold(std::string_view name) const;
};

// The adapter that a model's name means: none for the base model, which no name and an empty one mean, too (the
// latter as with vLLM), "base:adapter" or an adapter's own name.
std::optional<std::string> adapter_of(const std::optional<std::string>& model, const ModelNames& base);

// What an answer calls its model: as the request does, which may leave it out or empty for the base model.
std::string answering_model(const std::optional<std::string>& model, const std::string& base);

// `created`: seconds since 1970, when the server started.
std::string model_card(const ServedModel& model, int64_t created, int32_t max_model_len);
std::string model_list(const std::vector<ServedModel>& models, int64_t created, int32_t max_model_len);

}  // namespace lorikeet::comm
