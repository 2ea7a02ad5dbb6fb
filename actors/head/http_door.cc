#include "actors/head/http_door.h"

#include <chrono>
#include <future>
#include <utility>

#include "actors/head/metrics_text.h"
#include "comm/client/limits.h"
#include "comm/openai/openai_error.h"

namespace lorikeet::actors {

struct DoWork {
  std::shared_ptr<HttpApi::Work> work;
};
struct WorkDone {
  std::shared_ptr<std::function<void()>> then;
};

}  // namespace lorikeet::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::DoWork)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::WorkDone)

namespace lorikeet::actors {
namespace {

constexpr std::chrono::seconds kSchedulerTimeout{5};

using BodyReaderActor = caf::typed_actor<caf::replies_to<DoWork>::with<WorkDone>>;

BodyReaderActor::behavior_type body_reader(BodyReaderActor::pointer) {
  return {[](const DoWork& ask) { return WorkDone{std::make_shared<std::function<void()>>((*ask.work)())}; }};
}

int64_t seconds_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

HttpApi::Outside outside(HttpDoorActor::pointer self, comm::HttpServer* server, const GatewayActor& gateway,
                         const SchedulerActor& scheduler) {
  const auto reader = self->spawn<caf::linked + caf::detached>(body_reader);
  HttpApi::Outside to;
  to.ask_gateway = [self, gateway](uint64_t client, std::shared_ptr<const Grant> grant, comm::ClientMessage message,
                                   bool is_counted) {
    self->send(gateway, ClientSaid{client, std::make_shared<comm::ClientMessage>(std::move(message)), std::move(grant),
                                   is_counted});
  };
  to.leave_gateway = [self, gateway](uint64_t client, bool left) { self->send(gateway, ClientGone{client, left}); };
  to.answer = [server](comm::ExchangeId exchange, comm::HttpAnswer answer) {
    server->answer(exchange, std::move(answer));
  };
  to.begin = [server](comm::ExchangeId exchange, comm::HttpAnswer head) { server->begin(exchange, std::move(head)); };
  to.write = [server](comm::ExchangeId exchange, std::string piece) { server->write(exchange, std::move(piece)); };
  to.end = [server](comm::ExchangeId exchange) { server->end(exchange); };
  to.elsewhere = [self, reader](HttpApi::Work work) {
    self->request(reader, caf::infinite, DoWork{std::make_shared<HttpApi::Work>(std::move(work))})
        .then([](const WorkDone& done) { (*done.then)(); });
  };
  to.reset_prefix_cache = [self, scheduler](std::function<void(bool)> then) {
    self->request(scheduler, kSchedulerTimeout, ResetPrefixCache{})
        .then([then](bool done) { then(done); }, [then](const caf::error&) { then(false); });
  };
  to.now = seconds_now;
  return to;
}

HttpDoorActor::behavior_type http_door(HttpDoorActor::pointer self, HttpApi::Setup setup, comm::HttpServer* server,
                                       GatewayActor gateway, SchedulerActor scheduler) {
  auto api = std::make_shared<HttpApi>(std::move(setup), outside(self, server, gateway, scheduler));
  return {[api](HttpSaid& said) { api->request(said.exchange, std::move(*said.request)); },
          [api](const HttpGone& gone) { api->gone(gone.exchange); },
          [api](AnswerHttp& answer) { api->said(answer.client, std::move(*answer.message)); },
          [api](ServingChanged& changed) { api->serving(changed.serves, std::move(changed.why)); },
          [self](const StopServing&) { self->quit(); }};
}

comm::HttpServerOptions server_options(const HttpDoorOptions& options) {
  comm::HttpServerOptions to;
  to.host = options.host;
  to.port = static_cast<uint16_t>(options.port);
  to.max_head_bytes = comm::kMaxHttpHeadBytes;
  to.max_headers = comm::kMaxHttpHeaders;
  to.max_body_bytes = comm::kMaxBodyBytes;
  to.max_all_body_bytes = comm::kMaxUndecodedBytes;
  to.max_pending_bytes = comm::kMaxUnreadBytes;
  to.max_connections = comm::kMaxHttpConnections;
  to.head_timeout = comm::kHttpHeadTime;
  to.body_timeout = comm::kHttpBodyTime;
  to.idle_timeout = comm::kHttpIdleTime;
  to.write_timeout = comm::kHttpWriteTime;
  if (!options.ssl_certfile.empty()) {
    to.tls.emplace();
    to.tls->key_file = options.ssl_keyfile;
    to.tls->certificate_file = options.ssl_certfile;
    to.tls->ca_file = options.ssl_ca_certs;
    to.tls->clients = static_cast<comm::TlsOptions::ClientCertificates>(options.ssl_cert_reqs);
  }
  return to;
}

}  // namespace

Result<HttpDoor> open_http_door(caf::scoped_actor& opener, const HttpDoorSetup& setup) {
  const HttpDoorOptions& options = setup.options.http;
  const auto routes =
      std::make_shared<const HttpRoutes>(HttpRoutes::Options{setup.access, options.root_path, options.allowed_origins});
  // A first request may come before the actor is there.
  auto spawned = std::make_shared<std::promise<HttpDoorActor>>();
  const auto actor = spawned->get_future().share();
  comm::HttpCallbacks callbacks;
  callbacks.on_head = [routes](const comm::HttpRequest& head) { return routes->refuse(head); };
  callbacks.on_request = [actor](comm::ExchangeId exchange, comm::HttpRequest request) {
    caf::anon_send(actor.get(), HttpSaid{exchange, std::make_shared<comm::HttpRequest>(std::move(request))});
  };
  callbacks.on_gone = [actor](comm::ExchangeId exchange) { caf::anon_send(actor.get(), HttpGone{exchange}); };
  callbacks.refusal = [](int status, const std::string& sentence) {
    return comm::HttpAnswer{
        status, {{"Content-Type", "application/json"}}, comm::to_body(comm::error_of(status, sentence))};
  };
  auto server = comm::HttpServer::start(server_options(options), std::move(callbacks));
  if (!server) return tl::unexpected(server.error());

  HttpApi::Setup api;
  api.routes = routes;
  api.validation = setup.validation;
  api.model_names = {setup.options.served_model_name, setup.options.more_model_names};
  api.model_root = setup.options.model;
  api.metrics_text = [metrics = setup.metrics, loras = setup.options.max_loras,
                      block = setup.options.block_size](const ServerStatus& status) {
    return metrics_text(status, metrics->collect(), loras, block, seconds_now());
  };
  api.answered = [metrics = setup.metrics](int32_t n, int32_t longest) { metrics->answered(n, longest); };
  api.passed_over = [log = setup.log](const std::string& request_id, const std::vector<std::string>& fields) {
    log->passed_over(request_id, fields);
  };
  HttpDoor door;
  door.server = *std::move(server);
  door.actor =
      opener->spawn<caf::monitored>(http_door, std::move(api), door.server.get(), setup.gateway, setup.scheduler);
  spawned->set_value(door.actor);
  return door;
}

}  // namespace lorikeet::actors
