#include "comm/openai/models.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comm/openai/json_text.h"

namespace lorikeet::comm {
namespace {

using Json = nlohmann::ordered_json;

Json card(const ServedModel& model, int64_t created, int32_t max_model_len) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", created},
          {"owned_by", "lorikeet"},
          {"root", model.root},
          {"parent", model.parent.empty() ? Json() : Json(model.parent)},
          {"max_model_len", max_model_len}};
}

}  // namespace

std::string model_card(const ServedModel& model, int64_t created, int32_t max_model_len) {
  return to_text(card(model, created, max_model_len));
}

std::string model_list(const std::vector<ServedModel>& models, int64_t created, int32_t max_model_len) {
  Json data = Json::array();
  for (const ServedModel& model : models) data.push_back(card(model, created, max_model_len));
  return to_text({{"object", "list"}, {"data", std::move(data)}});
}

bool ModelNames::hold(std::string_view name) const {
  return name == first || std::find(more.begin(), more.end(), name) != more.end();
}

std::optional<std::string> adapter_of(const std::optional<std::string>& model, const ModelNames& base) {
  if (!model || model->empty() || base.hold(*model)) return std::nullopt;
  for (size_t colon = model->find(':'); colon != std::string::npos; colon = model->find(':', colon + 1)) {
    if (base.hold(std::string_view(*model).substr(0, colon))) return model->substr(colon + 1);
  }
  return model;
}

std::string answering_model(const std::optional<std::string>& model, const std::string& base) {
  return model && !model->empty() ? *model : base;
}

}  // namespace lorikeet::comm
