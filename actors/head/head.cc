#include "actors/head/head.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>

#include "actors/head/adapter_cache.h"
#include "actors/head/gateway.h"
#include "actors/head/http_door.h"
#include "actors/head/request_validation.h"
#include "actors/head/scheduler.h"
#include "actors/head/text_preparer.h"
#include "actors/head/throughput_log.h"
#include "actors/wire/caf_connection.h"
#include "actors/wire/child_process.h"
#include "actors/wire/descriptor_channel.h"
#include "actors/wire/device_types.h"
#include "actors/wire/kv_budget.h"
#include "actors/wire/system_config.h"
#include "comm/client/zmq_server.h"
#include "engine/step_memory.h"
#include "kernels/base/console.h"
#include "kernels/base/thread_turns.h"
#include "model/chat/chat_template.h"
#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::actors {
namespace {

// The part of the budget for staged adapters that those being read and packed may take in addition.
constexpr uint64_t kReadingShare = 2;

// Answers the supervisor once all actors without which the head is of no use have answered: an actor that hangs is
// noticed as a stopped process is.
caf::behavior heart(caf::event_based_actor* self, ChildProcess* child, SchedulerActor scheduler,
                    AdapterCacheActor cache) {
  const auto gateway = std::make_shared<GatewayActor>();
  const auto unheard = [](const caf::error&) {};
  const auto alive = [child](bool) { child->tell(control::Alive{}); };
  return {[=](const Serve& serve) { *gateway = serve.gateway; },
          [=](Pulse pulse) {
            self->request(scheduler, caf::infinite, pulse)
                .then(
                    [=](bool) {
                      self->request(cache, caf::infinite, pulse)
                          .then(
                              [=](bool answered) {
                                if (!*gateway) return alive(answered);
                                self->request(*gateway, caf::infinite, pulse).then(alive, unheard);
                              },
                              unheard);
                    },
                    unheard);
          }};
}

class Head {
 public:
  explicit Head(ChildProcess& child)
      : child_(child),
        options_(child.start().options),
        adapters_(options_.lora_modules),
        config_(options_, Networking::connected, kActorThreads),
        system_(config_),
        main_(system_) {}

  // Ends the process, when what was said has been written.
  [[noreturn]] void give_up(const std::string& why) {
    if (log_) log_->close(kLogPatience);
    child_.fail(why);
  }

  // Until the supervisor says stop.
  Result<void> run() {
    if (auto ok = start_actors(); !ok) return ok;
    if (auto ok = open_to_clients(); !ok) return ok;
    wait();
    return {};
  }

 private:
  static constexpr std::chrono::milliseconds kLogPatience{1000};
  static constexpr size_t kActorThreads = 4;  // gateway, HTTP door, scheduler and adapter cache at once

  // What the ranks need; they load while the tokenizer does.
  Result<void> start_actors() {
    auto config = model::read_model_config(options_.model);
    if (!config) return tl::unexpected(config.error());
    const auto length = context_length(options_, *config);
    if (!length) return tl::unexpected(length.error());
    auto plan = model::ShardPlan::make(*config, options_.tensor_parallel_size);
    if (!plan) return tl::unexpected(plan.error());
    model_config_ = *std::move(config);
    max_model_len_ = *length;

    const model::StepCost step_cost = step_cost_of(options_, *plan);
    AdapterCacheSetup cache_setup;
    cache_setup.options = options_;
    cache_setup.names = adapters_;
    if (options_.runtime_lora_updating) {
      NameJournal::remove_dead();
      journal_ = std::make_shared<NameJournal>(NameJournal::path_of(child_.start().parent_pid));
      cache_setup.journal = journal_;
    }
    cache_setup.descriptors = descriptors_;
    cache_setup.make_source = [plan = *std::move(plan), options = options_,
                               layout = slice_layout(options_, model_config_)](AdapterSource::Callbacks callbacks) {
      return std::make_unique<AdapterReader>(
          plan, options.max_lora_rank, TestHooks(options.test_hooks), std::move(callbacks), AdapterReader::Patience(),
          AdapterDirectories(options.lora_dirs), layout, options.max_cpu_lora_bytes / kReadingShare);
    };
    cache_ = main_->spawn<caf::monitored>(adapter_cache, std::move(cache_setup));
    SchedulerSetup setup;
    setup.options = options_;
    setup.max_model_len = max_model_len_;
    setup.vocab_size = model_config_.vocab_size;
    setup.step_cost = step_cost;
    setup.first_epoch = child_.start().epoch;
    setup.cache = cache_;
    setup.rank_of = [peers = peers_](const caf::node_id& node) { return peers->rank_of(node); };
    setup.to_supervisor = [this](ChildReport report) { scheduler_said(std::move(report)); };
    scheduler_ = main_->spawn<caf::monitored>(scheduler, std::move(setup));
    heart_ = main_->spawn(heart, &child_, scheduler_, cache_);
    child_.tell(control::AwaitsRanks{});
    child_.listen([this](const ChildOrder& order, Descriptor with) { supervisor_said(order, std::move(with)); });
    return {};
  }

  Result<void> open_to_clients() {
    Result<std::shared_ptr<const model::Tokenizer>> tokenizer = nullptr;
    if (model::Tokenizer::is_in(options_.model)) tokenizer = model::Tokenizer::load(options_.model);
    if (!tokenizer) return tl::unexpected(tokenizer.error());
    auto defaults = model::read_generation_defaults(options_.model);
    if (!defaults) return tl::unexpected(defaults.error());
    Result<model::ChatTemplate> chat = fail("{} has no tokenizer", options_.model);
    if (*tokenizer) chat = model::ChatTemplate::load(options_.model, **tokenizer, options_.chat_template);
    if (!chat && !options_.chat_template.empty()) return tl::unexpected(chat.error());
    if (chat && options_.chat.special_tokens_in_text) chat->trust_special_tokens();

    std::shared_ptr<model::GrammarSource> grammars;
    if (*tokenizer) {
      grammars = std::make_shared<model::GrammarSource>([tokenizer = *tokenizer, size = model_config_.vocab_size] {
        return model::make_grammar_compiler(*tokenizer, size);
      });
    }
    GatewaySetup setup;
    setup.validation = std::make_shared<RequestValidation>(RequestValidation::Context{
        model_config_, *std::move(defaults), *std::move(tokenizer), std::move(chat), max_model_len_, adapters_,
        options_.chat, std::move(grammars), options_.max_num_queued_reqs + options_.max_num_seqs});
    setup.scheduler = scheduler_;
    setup.cache = cache_;
    setup.text_preparer = main_->spawn<caf::monitored + caf::detached>(text_preparer, setup.validation);
    setup.max_long_texts = static_cast<size_t>(options_.max_num_queued_reqs);
    metrics_ = std::make_shared<RequestMetrics>(options_.served_model_name, max_model_len_);
    setup.request_timeout = std::chrono::milliseconds(options_.request_timeout_ms);
    setup.metrics = metrics_;
    log_ = std::make_shared<RequestLog>(options_.log);
    setup.log = log_;
    setup.is_counted_by_its_door = is_http_client;
    if (options_.log.level != "off") main_->spawn(throughput_log, scheduler_, log_);
    setup.tenants = options_.access.tenants;
    setup.seed = options_.seed;
    setup.model_name = options_.served_model_name;
    setup.supervisor_pid = child_.start().parent_pid;
    // A first request may come before start() below has returned.
    auto started = std::make_shared<std::promise<comm::ZmqServer*>>();
    setup.answer = [this, server = started->get_future().share()](uint64_t client, comm::ServerMessage message) {
      if (is_http_client(client)) {
        caf::anon_send(http_door_.get(), AnswerHttp{client, std::make_shared<comm::ServerMessage>(std::move(message))});
      } else {
        server.get()->send(client, std::move(message));
      }
    };
    const auto validation = setup.validation;
    gateway_ = main_->spawn<caf::monitored>(gateway, std::move(setup));
    caf::anon_send(heart_, Serve{gateway_, ""});

    comm::ZmqServerOptions zmq;
    zmq.address = options_.zmq_address;
    auto server = comm::ZmqServer::start(secured(std::move(zmq)), zmq_callbacks());
    if (!server) return tl::unexpected(server.error());
    server_ = *std::move(server);
    started->set_value(server_.get());
    if (options_.http.port >= 0) {
      if (auto ok = open_to_http(validation); !ok) return ok;
    }
    caf::anon_send(scheduler_, Serve{gateway_, server_->address()});
    return {};
  }

  // A user's name is its grant's number.
  comm::ZmqServerOptions secured(comm::ZmqServerOptions zmq) const {
    const auto named = [](const std::optional<size_t>& grant) {
      return grant ? std::optional<std::string>(std::to_string(*grant)) : std::nullopt;
    };
    if (options_.access.zmq_mechanism == "plain") zmq.mechanism = comm::ZmqMechanism::plain;
    if (options_.access.zmq_mechanism == "curve") zmq.mechanism = comm::ZmqMechanism::curve;
    zmq.secret_key = options_.access.zmq_secret_key;
    zmq.users.of_curve_key = [named, access = access_](const std::string& key) { return named(access->of_curve(key)); };
    zmq.users.of_password = [named, access = access_](std::string_view user, std::string_view password) {
      return named(access->of_password(user, password));
    };
    return zmq;
  }

  // Called on ZeroMQ's thread, one at a time.
  comm::ZmqServerCallbacks zmq_callbacks() const {
    using Grants = std::unordered_map<comm::ClientId, std::shared_ptr<const Grant>>;
    const auto grants = std::make_shared<Grants>();
    comm::ZmqServerCallbacks callbacks;
    callbacks.on_user = [grants, access = access_](comm::ClientId client, const std::string& user) {
      (*grants)[client] = access->numbered(user);
    };
    callbacks.on_message = [grants, to = gateway_](comm::ClientId client, comm::ClientMessage message) {
      const auto found = grants->find(client);
      caf::anon_send(to, ClientSaid{client, std::make_shared<comm::ClientMessage>(std::move(message)),
                                    found == grants->end() ? nullptr : found->second});
    };
    callbacks.on_gone = [grants, to = gateway_](comm::ClientId client) {
      grants->erase(client);
      caf::anon_send(to, ClientGone{client});
    };
    return callbacks;
  }

  Result<void> open_to_http(const std::shared_ptr<const RequestValidation>& validation) {
    auto door = open_http_door(main_, {options_, validation, metrics_, log_, gateway_, scheduler_, access_});
    if (!door) return tl::unexpected(door.error());
    http_server_ = std::move(door->server);
    http_port_ = http_server_->port();
    http_opened_.set_value(door->actor);
    child_.tell(control::Progress{fmt::format("OpenAI API at {}/v1", http_server_->url())});
    return {};
  }

  // On the scheduler's thread.
  void scheduler_said(ChildReport report) {
    if (auto* ready = std::get_if<control::Ready>(&report)) {
      ready->http_port = http_port_;
      has_served_ = true;
      tell_http_door({true, ""});
    } else if (std::holds_alternative<control::GroupLost>(report)) {
      tell_http_door({false, "the ranks are lost and start again"});
    }
    child_.tell(report);
  }

  void tell_http_door(ServingChanged changed) const {
    const bool opened = http_door_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    if (opened) caf::anon_send(http_door_.get(), std::move(changed));
  }

  void supervisor_said(const ChildOrder& order, Descriptor with) {
    if (const auto* epoch = std::get_if<control::NewEpoch>(&order)) {
      // The supervisor has seen which process died; reports of ranks may blame one that has only lost its peer.
      if (!epoch->why.empty()) tell_http_door({false, epoch->why});
      caf::anon_send(scheduler_, SupervisorSaid{*epoch});
    } else if (const auto* ends = std::get_if<control::RankDescriptors>(&order)) {
      if (with) descriptors_->put(ends->rank, std::move(with));
    } else if (const auto* connection = std::get_if<control::RankConnection>(&order)) {
      if (with) offer_to_rank(system_, std::move(with), connection->rank, peers_, scheduler_);
    } else if (std::holds_alternative<control::Ping>(order)) {
      caf::anon_send(heart_, Pulse{});
    } else if (std::holds_alternative<control::Stop>(order)) {
      caf::anon_send(caf::actor_cast<caf::actor>(main_.ptr()), caf::ok_atom_v);
    }
  }

  // Running requests may end, nothing new begins, and /health fails first.
  void drain() {
    if (options_.drain_timeout_ms <= 0) return;
    const std::string why = "the server is going away";
    if (http_server_) caf::anon_send(http_door_.get(), ServingChanged{false, why});
    main_->request(gateway_, std::chrono::milliseconds(options_.drain_timeout_ms), Drain{why, has_served_})
        .receive([](bool) {}, [](const caf::error&) {});  // it took too long: StopServing answers what is left
  }

  // When one actor ends by itself, the others' state is not consistent any more: the process ends and is started again.
  void wait() {
    bool stop = false;
    while (!stop) {
      main_->receive(
          [&](caf::ok_atom) { stop = true; },
          [&](const caf::down_msg& down) { give_up("an actor of the head has died: " + system_.render(down.reason)); });
    }
    drain();
    caf::anon_send(gateway_, StopServing{"the server is going away"});
    // It answers everything and ends; the socket then gives its clients what they have not read yet.
    main_->receive([](const caf::down_msg&) {}, caf::after(std::chrono::seconds(1)) >> [] {});
    if (http_server_) {
      caf::anon_send(http_door_.get(), StopServing{});
      main_->receive([](const caf::down_msg&) {}, caf::after(std::chrono::seconds(1)) >> [] {});
      http_server_.reset();
    }
    server_.reset();
    if (journal_) journal_->remove();
    log_->close(kLogPatience);
  }

  ChildProcess& child_;
  const ServerOptions options_;
  model::ModelConfig model_config_;
  int32_t max_model_len_ = 0;
  const AdapterNames adapters_;
  std::shared_ptr<NameJournal> journal_;  // the adapter cache's, until that ends; null: names do not change
  SystemConfig config_;
  const std::shared_ptr<DescriptorSenders> descriptors_ = std::make_shared<DescriptorSenders>();
  const std::shared_ptr<PeerRanks> peers_ = std::make_shared<PeerRanks>();
  caf::actor_system system_;
  caf::scoped_actor main_;
  caf::actor heart_;
  AdapterCacheActor cache_;
  SchedulerActor scheduler_;
  GatewayActor gateway_;
  const std::shared_ptr<const Access> access_ = std::make_shared<const Access>(options_.access);
  std::shared_ptr<RequestMetrics> metrics_;
  std::shared_ptr<RequestLog> log_;
  std::unique_ptr<comm::ZmqServer> server_;
  std::promise<HttpDoorActor> http_opened_;
  std::shared_future<HttpDoorActor> http_door_ = http_opened_.get_future().share();
  std::unique_ptr<comm::HttpServer> http_server_;
  std::atomic<int32_t> http_port_{0};
  std::atomic<bool> has_served_{false};  // a group of ranks
};

}  // namespace

int run_head() {
  engine::keep_step_memory();
  auto child = ChildProcess::attach();
  if (!child) {
    say("lorikeet head: {}", child.error().message);
    return 2;
  }
  // Otherwise threads that read adapters would take cores for the length of a step at a time.
  if ((*child)->start().options.device == "cuda") kernels::take_short_turns();
  Head head(**child);
  if (auto ok = head.run(); !ok) head.give_up(ok.error().message);
  // Everything has been answered; actors that wait for ranks would only hold up the end.
  _exit(0);
}

}  // namespace lorikeet::actors
