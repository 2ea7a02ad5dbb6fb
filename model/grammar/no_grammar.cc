#include "model/grammar/grammar.h"

namespace lorikeet::model {

bool has_grammars() {
  return false;
}

Result<std::shared_ptr<GrammarCompiler>> make_grammar_compiler(const Tokenizer&, int32_t, size_t) {
  return fail("grammars are off in this build (launcher/install_dependencies.sh --grammar, then build again)");
}

}  // namespace lorikeet::model
