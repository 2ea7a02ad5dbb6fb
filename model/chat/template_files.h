// Where a checkpoint's chat templates are. Source: transformers' tokenization_utils_base.py (_from_pretrained).
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "kernels/base/error.h"

namespace lorikeet::model {

struct TemplateFiles {
  std::map<std::string, std::string> sources;  // by name: default, tool_use, rag, ...
  std::string where;                           // for messages: the file of the default one
};

// DIR/chat_template.jinja and DIR/additional_chat_templates/*.jinja; else DIR/chat_template.json; else what
// DIR/tokenizer_config.json has (a string, a list of {name, template}, or an object of templates by name). Empty where
// there is none.
Result<TemplateFiles> read_template_files(const std::filesystem::path& dir);

}  // namespace lorikeet::model
