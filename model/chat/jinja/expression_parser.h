// The parser's part for expressions.
#pragma once

#include "model/chat/jinja/syntax.h"
#include "model/chat/jinja/token_stream.h"

namespace lorikeet::model::jinja {

ExpressionPtr parse_expression(TokenStream& stream, bool with_conditional = true);

// One expression, or several with commas: a tuple.
ExpressionPtr parse_tuple(TokenStream& stream, bool with_conditional = true);

// |name(arguments)|..., on top of `input`; bare: the first has no bar in front. Null where there is none.
ExpressionPtr parse_filters(TokenStream& stream, ExpressionPtr input, bool bare);

}  // namespace lorikeet::model::jinja
