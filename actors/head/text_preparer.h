// The actor that checks and tokenizes long texts, so that the gateway's streams do not wait for them.
//
// Receives PrepareText -> TextPrepared. Owns nothing. Thread: its own, since a text of 16 MiB takes most of a second.
//
//   one state: serving
#pragma once

#include <caf/all.hpp>
#include <memory>

#include "actors/head/messages.h"
#include "actors/head/request_validation.h"

namespace lorikeet::actors {

TextPreparerActor::behavior_type text_preparer(TextPreparerActor::pointer self,
                                               std::shared_ptr<const RequestValidation> validation);

}  // namespace lorikeet::actors
