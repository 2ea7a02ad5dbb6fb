#include "actors/head/text_preparer.h"

namespace lorikeet::actors {

TextPreparerActor::behavior_type text_preparer(TextPreparerActor::pointer,
                                               std::shared_ptr<const RequestValidation> validation) {
  return {[validation](const PrepareText& ask) {
    if (!*ask.wanted) return TextPrepared{};
    return TextPrepared{std::make_shared<PreparationResult>(validation->prepare(*ask.request, ask.seed))};
  }};
}

}  // namespace lorikeet::actors
