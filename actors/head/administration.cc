#include "actors/head/administration.h"

#include <utility>
#include <variant>

#include "actors/wire/adapter_list.h"
#include "comm/codec/json_codec.h"

namespace lorikeet::actors {
namespace {

constexpr std::chrono::seconds kStatusTimeout{5};
constexpr std::chrono::seconds kChangeTimeout{180};  // the adapter cache gives up earlier, and says why
constexpr const char* kForAdministrators = "the server's state, adapters and prefix cache are for administrators";

}  // namespace

void Administration::said(const ClientSaid& said, const std::optional<std::string>& draining, size_t live_requests) {
  const uint64_t client = said.client;
  if (said.grant && !said.grant->admin) {
    const std::string name = std::visit([](const auto& message) { return message.id; }, *said.message);
    return setup_.answer(client, comm::Failure{name, "forbidden", kForAdministrators});
  }
  if (const auto* status_request = std::get_if<comm::StatusRequest>(said.message.get())) {
    return status(client, *status_request, live_requests);
  }
  if (const auto* reset = std::get_if<comm::ResetPrefixCacheRequest>(said.message.get())) {
    return reset_prefix_cache(client, reset->id);
  }
  std::shared_ptr<const comm::AdapterRequest> request(said.message, &std::get<comm::AdapterRequest>(*said.message));
  if (request->action == "list") return list_adapters(client, request->id);
  if (draining) return refuse(client, request->id, engine::ErrorCode::shutting_down, *draining);
  change_adapters(client, std::move(request));
}

void Administration::stop(const std::string& why) {
  for (const auto& [number, change] : std::exchange(changes_, {})) {
    refuse(change.client, change.request->id, engine::ErrorCode::shutting_down, why);
  }
}

void Administration::refuse(uint64_t client, const std::string& name, engine::ErrorCode code,
                            std::string sentence) const {
  setup_.answer(client, comm::Failure{name, std::string(name_of(code)), std::move(sentence)});
}

void Administration::change_adapters(uint64_t client, std::shared_ptr<const comm::AdapterRequest> request) {
  const uint64_t number = ++last_change_;
  changes_[number] = {client, request, std::chrono::steady_clock::now()};
  self_->request(setup_.cache, kChangeTimeout, ChangeAdapter{std::move(request)})
      .then([this, number](AdapterChanged& changed) { adapters_changed(number, changed); },
            [this, number](caf::error& error) {
              AdapterChanged failed{"the adapter cache: " + self_->system().render(error), "internal"};
              adapters_changed(number, failed);
            });
}

void Administration::adapters_changed(uint64_t number, AdapterChanged& changed) {
  const auto node = changes_.extract(number);
  if (!node) return;
  const auto& [client, request, began] = node.mapped();
  if (setup_.log) {
    setup_.log->changed({request->action, request->name.value_or(""), request->path.value_or(""), changed.code,
                         changed.message, std::chrono::steady_clock::now() - began});
  }
  if (changed.code.empty()) {
    setup_.answer(client, comm::AdapterReply{request->id, std::move(changed.message), std::nullopt});
  } else {
    setup_.answer(client, comm::Failure{request->id, std::move(changed.code), std::move(changed.message)});
  }
}

void Administration::list_adapters(uint64_t client, const std::string& name) {
  self_->request(setup_.cache, kStatusTimeout, StatusQuery{})
      .then(
          [this, client, name](AdaptersStatus& adapters) {
            setup_.answer(client, comm::AdapterReply{name, "", comm::to_json(adapter_list(adapters))});
          },
          [this, client, name](caf::error& error) {
            refuse(client, name, engine::ErrorCode::internal,
                   "the adapters are not known: " + self_->system().render(error));
          });
}

void Administration::reset_prefix_cache(uint64_t client, const std::string& name) {
  self_->request(setup_.scheduler, kStatusTimeout, ResetPrefixCache{})
      .then([this, client, name](bool) { setup_.answer(client, comm::PrefixCacheReset{name}); },
            [this, client, name](caf::error& error) {
              refuse(client, name, engine::ErrorCode::internal,
                     "the prefix cache was not reset: " + self_->system().render(error));
            });
}

void Administration::status(uint64_t client, const comm::StatusRequest& request, size_t live_requests) {
  const std::string& name = request.id;
  auto status = std::make_shared<ServerStatus>();
  status->model = setup_.model_name;
  status->max_model_len = setup_.validation->context().max_model_len;
  status->vocab_size = setup_.validation->context().config.vocab_size;
  status->live_requests = live_requests;
  status->supervisor.pid = setup_.supervisor_pid;
  const auto failed = [this, client, name](caf::error& error) {
    refuse(client, name, engine::ErrorCode::internal,
           "the server's state is not known: " + self_->system().render(error));
  };
  self_->request(setup_.scheduler, kStatusTimeout, StatusQuery{})
      .then(
          [this, client, name, status, failed, brief = request.brief](ServingStatus& serving) {
            status->serving = std::move(serving);
            self_->request(setup_.cache, kStatusTimeout, StatusQuery{brief})
                .then(
                    [this, client, name, status](AdaptersStatus& adapters) {
                      status->adapters = std::move(adapters);
                      setup_.answer(client, comm::StatusReply{name, comm::to_json(*status)});
                    },
                    failed);
          },
          failed);
}

}  // namespace lorikeet::actors
