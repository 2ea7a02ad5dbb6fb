// What administrators ask of the gateway: the server's status, its adapters and changes to them, the prefix cache.
// Part of that actor, on its thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "actors/head/gateway.h"
#include "comm/client/client_messages.h"

namespace lorikeet::actors {

class Administration {
 public:
  // Both outlive it.
  Administration(GatewayActor::pointer self, const GatewaySetup& setup) : self_(self), setup_(setup) {}

  // A message that is neither a request nor its cancellation. draining: set while changes are refused, the reason.
  // live_requests: for the status.
  void said(const ClientSaid& said, const std::optional<std::string>& draining, size_t live_requests);

  // Answers the changes under way with shutting_down.
  void stop(const std::string& why);

 private:
  struct AdapterChange {
    uint64_t client = 0;
    std::shared_ptr<const comm::AdapterRequest> request;
    std::chrono::steady_clock::time_point began;
  };

  void change_adapters(uint64_t client, std::shared_ptr<const comm::AdapterRequest> request);
  void adapters_changed(uint64_t number, AdapterChanged& changed);
  void list_adapters(uint64_t client, const std::string& name);
  void reset_prefix_cache(uint64_t client, const std::string& name);
  void status(uint64_t client, const comm::StatusRequest& request, size_t live_requests);
  void refuse(uint64_t client, const std::string& name, engine::ErrorCode code, std::string sentence) const;

  const GatewayActor::pointer self_;
  const GatewaySetup& setup_;
  std::map<uint64_t, AdapterChange> changes_;  // of adapters, that are not answered yet
  uint64_t last_change_ = 0;
};

}  // namespace lorikeet::actors
