// A gateway whose scheduler, adapter cache and clients a test plays.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/head/gateway.h"
#include "actors/head/text_preparer.h"
#include "tests/actors/actor_test.h"
#include "tests/actors/fake_adapter_cache.h"

namespace lorikeet::actors {

struct GatewayAnswer {
  uint64_t client = 0;
  comm::ServerMessage message;
};

struct GatewayHeard {
  std::vector<std::shared_ptr<engine::Request>> submitted;
  std::vector<Finish> finished;
  std::vector<GatewayAnswer> answers;
};

inline constexpr uint64_t kClient = 5;
inline constexpr int32_t kEos = 2047;

inline constexpr size_t kMaxLongBytes = 100'000;

class GatewayTest : public ActorTest {
 protected:
  static void SetUpTestSuite() {
    const auto dir = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";
    tokenizer_ = model::Tokenizer::load(dir).value();
    auto chat = model::ChatTemplate::load(dir, *tokenizer_);
    validation_ = std::make_shared<RequestValidation>(RequestValidation::Context{
        model::read_model_config(dir).value(), model::read_generation_defaults(dir).value(), tokenizer_,
        std::move(chat), 100, AdapterNames(AdapterNames::List{{"kjv", "/kjv"}})});
  }
  static void TearDownTestSuite() {
    validation_.reset();
    tokenizer_.reset();
  }

  void SetUp() override {
    scheduler_ = system_.spawn(fake_scheduler, heard_);
    cache_ = system_.spawn(fake_adapter_cache, cache_answers());
    GatewaySetup setup;
    setup.validation = validation_;
    setup.scheduler = scheduler_;
    setup.cache = cache_;
    setup.text_preparer = text_preparer_ = system_.spawn(text_preparer, validation_);
    setup.short_text_bytes = 40;
    setup.max_long_texts = 2;
    setup.max_long_bytes = kMaxLongBytes;
    setup.answer = [heard = heard_](uint64_t client, comm::ServerMessage message) {
      heard->answers.push_back({client, std::move(message)});
    };
    setup.metrics = metrics_;
    setup.tenants = {{"acme", 2, 0}, {"small", 0, 40}};
    setup.request_timeout = std::chrono::seconds(10);
    setup.seed = 1;
    setup.model_name = "tiny";
    setup.supervisor_pid = 42;
    gateway_ = system_.spawn(gateway, std::move(setup));
    run();
  }

  void TearDown() override {
    end(gateway_);
    end(scheduler_);
    end(cache_);
    end(text_preparer_);
  }

  static SchedulerActor::behavior_type fake_scheduler(SchedulerActor::pointer, std::shared_ptr<GatewayHeard> heard) {
    return {[](Hello&, WorkerForHead&) { return Welcome{}; },
            [](Envelope&) {},
            [](Serve&) {},
            [heard](Submit& submit) { heard->submitted.push_back(submit.request); },
            [heard](const Finish& finish) { heard->finished.push_back(finish); },
            [](const GiveWay&) {},
            [](const ResetPrefixCache&) { return true; },
            [](SupervisorSaid&) {},
            [](Tick) {},
            [](const StatusQuery&) {
              ServingStatus status;
              status.zmq = "tcp://here";
              return status;
            },
            [](Pulse) { return true; }};
  }

  static FakeCacheAnswers cache_answers() {
    FakeCacheAnswers answers;
    auto slow = std::make_shared<std::vector<caf::typed_response_promise<AdapterChanged>>>();  // never kept
    answers.change = [slow](AdapterCacheActor::pointer self, const ChangeAdapter& ask) -> caf::result<AdapterChanged> {
      const std::string& name = *ask.request->name;
      if (name == "slow") return slow->emplace_back(self->make_response_promise<AdapterChanged>());
      if (name == "none") return AdapterChanged{"it is not there", "unknown_adapter"};
      return AdapterChanged{ask.request->action + " " + name, ""};
    };
    answers.status.adapters.push_back(
        {"kjv", "d", "staged", "resident", 2, 1, 3, 16, 4096, "/kjv", std::nullopt, true, false});
    return answers;
  }

  static comm::GenerateRequest request(const std::string& id) {
    comm::GenerateRequest made;
    made.id = id;
    made.prompt = "Call me";
    return made;
  }

  void say(comm::ClientMessage message, uint64_t client = kClient, std::shared_ptr<const Grant> grant = nullptr) {
    tell(gateway_, ClientSaid{client, std::make_shared<comm::ClientMessage>(std::move(message)), std::move(grant)});
  }

  void happen(std::vector<engine::Event> events) {
    tell(gateway_, EngineEvents{std::make_shared<std::vector<engine::Event>>(std::move(events))});
  }

  engine::SequenceId last_id() { return heard_->submitted.back()->id; }

  static engine::TokenEvent token(engine::SequenceId id, int32_t token_id) {
    engine::TokenEvent event;
    event.id = id;
    event.token_id = token_id;
    return event;
  }
  static engine::FinishEvent finish(engine::SequenceId id, engine::FinishReason reason, int32_t stop_token_id = -1) {
    engine::FinishEvent event;
    event.id = id;
    event.reason = reason;
    event.stop_token_id = stop_token_id;
    event.num_cached_tokens = 1;
    return event;
  }

  std::vector<int32_t> generate(const std::string& text) {
    const auto ids = tokenizer_->encode(text, false);
    for (const int32_t id : ids) happen({token(last_id(), id)});
    return ids;
  }

  template <class T>
  std::vector<T> all() {
    std::vector<T> found;
    for (const GatewayAnswer& answer : heard_->answers) {
      if (const auto* message = std::get_if<T>(&answer.message)) found.push_back(*message);
    }
    return found;
  }

  std::string text() {
    std::string joined;
    for (const auto& delta : all<comm::Delta>()) joined += delta.text;
    return joined;
  }

  static inline std::shared_ptr<const model::Tokenizer> tokenizer_;
  static inline std::shared_ptr<const RequestValidation> validation_;
  std::shared_ptr<GatewayHeard> heard_ = std::make_shared<GatewayHeard>();
  std::shared_ptr<RequestMetrics> metrics_ = std::make_shared<RequestMetrics>("tiny", 100);
  SchedulerActor scheduler_;
  AdapterCacheActor cache_;
  TextPreparerActor text_preparer_;
  GatewayActor gateway_;
};

}  // namespace lorikeet::actors
