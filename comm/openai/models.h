// The answers of /v1/models.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lorikeet::comm {

struct ServedModel {
  std::string id;
  std::string root;    // the directory that it is read from
  std::string parent;  // the base model of an adapter; empty: it is a base model
};

// `created`: seconds since 1970, when the server started.
std::string model_card(const ServedModel& model, int64_t created, int32_t max_model_len);
std::string model_list(const std::vector<ServedModel>& models, int64_t created, int32_t max_model_len);

}  // namespace lorikeet::comm
