// What the blocks of a template begin with, settled before anything runs, as Jinja2's compiler does (its idtracking): a
// name belongs to a block wherever in it the block sets it, so that what is inside sees nothing of it before that.
#pragma once

#include "model/chat/jinja/syntax.h"

namespace lorikeet::model::jinja {

// Fills Syntax::frame and Statement::frames. Throws TemplateError where Jinja2 refuses a name.
void settle_names(Syntax& syntax);

}  // namespace lorikeet::model::jinja
