// The actor that owns the HTTP door: the one place in actors/ where the HTTP server and the gateway meet. What it does is
// in HttpApi and HttpRoutes, which know no actors.
//
// Receives
//   from the HTTP server's thread: HttpSaid, HttpGone
//   from the gateway:              AnswerHttp
//   from the head:                 ServingChanged, StopServing
// Tells the gateway: ClientSaid, ClientGone. Asks the scheduler: ResetPrefixCache. Asks its body reader (an actor with a
//   thread of its own, for long bodies): DoWork. Owns: the exchanges whose answer is not complete (HttpApi). Thread: CAF's.
//
//            HttpSaid ...        StopServing
//   serving -----------> serving -----------> (the actor ends)
#pragma once

#include <caf/all.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "actors/head/http_api.h"
#include "actors/head/messages.h"
#include "actors/head/request_log.h"
#include "actors/head/request_metrics.h"
#include "actors/head/request_validation.h"
#include "actors/wire/options.h"
#include "comm/http/http_server.h"

namespace lorikeet::actors {

struct HttpSaid {
  comm::ExchangeId exchange = 0;
  std::shared_ptr<comm::HttpRequest> request;
};
struct HttpGone {
  comm::ExchangeId exchange = 0;
};
struct AnswerHttp {
  uint64_t client = 0;
  std::shared_ptr<comm::ServerMessage> message;
};
struct ServingChanged {
  bool serves = false;
  std::string why;  // not, if it does not
};
using HttpDoorActor = caf::typed_actor<caf::reacts_to<HttpSaid>, caf::reacts_to<HttpGone>, caf::reacts_to<AnswerHttp>,
                                       caf::reacts_to<ServingChanged>, caf::reacts_to<StopServing>>;

struct HttpDoor {
  HttpDoorActor actor;  // monitored by the opener
  std::unique_ptr<comm::HttpServer> server;
};

struct HttpDoorSetup {
  ServerOptions options;
  std::shared_ptr<const RequestValidation> validation;
  std::shared_ptr<RequestMetrics> metrics;
  std::shared_ptr<RequestLog> log;
  GatewayActor gateway;
  SchedulerActor scheduler;
  std::shared_ptr<const Access> access;
};

// Listens from now on. Errors name the address or the file that is wrong.
Result<HttpDoor> open_http_door(caf::scoped_actor& opener, const HttpDoorSetup& setup);

}  // namespace lorikeet::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::HttpSaid)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::HttpGone)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AnswerHttp)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ServingChanged)
