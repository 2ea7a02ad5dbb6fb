// Rules of a grammar that are made of themselves alone. XGrammar 0.2.9 goes down into repetitions of such a rule until
// its stack is full: a client that sends `root ::= root{2}` would end the process.
#pragma once

#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

// serialized: what XGrammar's Grammar::SerializeJSON gives of a grammar that was read and not compiled yet. Refuses, with
// its name, a rule that leads to itself through rules each of which is nothing but another one, repeated or not. Such
// rules take no text.
Result<void> check_rule_cycles(std::string_view serialized);

}  // namespace lorikeet::model
