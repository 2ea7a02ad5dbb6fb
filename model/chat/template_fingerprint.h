// Tells whether two Jinja chat templates are the same program, so that a checkpoint's template can be recognised among
// the known ones without an interpreter: spelling that changes nothing (spaces inside tags, kinds of quotes, m['role']
// or m.role, how literals are put together) is taken out first, anything else counts. Source: Jinja's lexer, with the
// trim_blocks and lstrip_blocks that transformers sets.
#pragma once

#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

struct TemplateFingerprint {
  std::string digest;          // SHA-256, in hexadecimal, of the template in canonical spelling, without default_system
  std::string default_system;  // the system prompt that the template has for conversations without one; may be empty
};

Result<TemplateFingerprint> fingerprint_template(std::string_view source);

}  // namespace lorikeet::model
