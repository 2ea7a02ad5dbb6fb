// The document at /openapi.json: every route of the HTTP door, what it takes and what it answers, in OpenAPI 3.1.
//
// A new route goes into kOperations (openapi.cc), a new field of a request's body into openapi_requests.cc, the shape of
// a new answer into openapi_answers.cc. Tests compare the first with HttpRoutes and the second with what the readers of
// bodies take.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace lorikeet::comm {

std::string openapi_document(const std::string& version);

// Its parts, under #/components/schemas: the bodies that are taken and those that are given, by their names.
nlohmann::json openapi_requests();
nlohmann::json openapi_answers();

}  // namespace lorikeet::comm
