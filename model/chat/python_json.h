// JSON as Python's json.dumps(value, ensure_ascii=False) spells it, which is what the chat templates' tojson gives and
// so what the models were trained on: ", " and ": ", keys in the order given, floats by repr.
#pragma once

#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

// text is any JSON value. Fails on what is not JSON, on a key that occurs twice in one object, and on nesting
// beyond 64.
Result<std::string> to_python_json(std::string_view text);

std::string python_float(double value);                                                      // repr() of a finite float
void append_python_json_string(std::string_view text, bool ensure_ascii, std::string* out);  // quoted and escaped

}  // namespace lorikeet::model
