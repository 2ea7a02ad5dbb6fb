#include "actors/head/gateway.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "actors/head/text_preparer.h"
#include "tests/actors/actor_test.h"

namespace lorikeet::actors {
namespace {

using engine::FinishReason;
using engine::SequenceId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Answer {
  uint64_t client = 0;
  comm::ServerMessage message;
};

struct Heard {
  std::vector<std::shared_ptr<engine::Request>> submitted;
  std::vector<Finish> finished;
  std::vector<Answer> answers;
};

constexpr uint64_t kClient = 5;
constexpr int32_t kEos = 2047;

constexpr size_t kMaxLongBytes = 100'000;

class GatewayTest : public ActorTest {
 protected:
  static void SetUpTestSuite() {
    const auto dir = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";
    tokenizer_ = model::Tokenizer::load(dir).value();
    auto chat = model::ChatTemplate::load(dir, *tokenizer_);
    validation_ =
        std::make_shared<RequestValidation>(RequestValidation::Context{model::read_model_config(dir).value(),
                                                                       model::read_generation_defaults(dir).value(),
                                                                       tokenizer_,
                                                                       std::move(chat),
                                                                       100,
                                                                       {"kjv"}});
  }
  static void TearDownTestSuite() {
    validation_.reset();
    tokenizer_.reset();
  }

  void SetUp() override {
    scheduler_ = system_.spawn(fake_scheduler, heard_);
    cache_ = system_.spawn(fake_cache);
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

  static SchedulerActor::behavior_type fake_scheduler(SchedulerActor::pointer, std::shared_ptr<Heard> heard) {
    return {[](Hello&, WorkerForHead&) { return Welcome{}; },
            [](Envelope&) {},
            [](Serve&) {},
            [heard](Submit& submit) { heard->submitted.push_back(submit.request); },
            [heard](const Finish& finish) { heard->finished.push_back(finish); },
            [](SupervisorSaid&) {},
            [](Tick) {},
            [](const StatusQuery&) {
              ServingStatus status;
              status.zmq = "tcp://here";
              return status;
            }};
  }

  static AdapterCacheActor::behavior_type fake_cache(AdapterCacheActor::pointer) {
    return {[](Envelope&) {},
            [](const ResolveAdapter&) { return AdapterResolved{}; },
            [](const UnclaimAdapter&) {},
            [](const AcquireSlot&) { return SlotAcquired{}; },
            [](const ReleaseSlot&) {},
            [](const GroupFormed&) {},
            [](const GroupLost&) {},
            [](AdapterSource::Checked&) {},
            [](AdapterSource::Staged&) {},
            [](FactorsMade&) {},
            [](Tick) {},
            [](const StatusQuery&) { return AdaptersStatus{}; }};
  }

  static comm::GenerateRequest request(const std::string& id) {
    comm::GenerateRequest made;
    made.id = id;
    made.prompt = "Call me";
    return made;
  }

  void say(comm::ClientMessage message, uint64_t client = kClient) {
    tell(gateway_, ClientSaid{client, std::make_shared<comm::ClientMessage>(std::move(message))});
  }

  void happen(std::vector<engine::Event> events) {
    tell(gateway_, EngineEvents{std::make_shared<std::vector<engine::Event>>(std::move(events))});
  }

  SequenceId last_id() { return heard_->submitted.back()->id; }

  static engine::TokenEvent token(SequenceId id, int32_t token_id) {
    engine::TokenEvent event;
    event.id = id;
    event.token_id = token_id;
    return event;
  }
  static engine::FinishEvent finish(SequenceId id, FinishReason reason, int32_t stop_token_id = -1) {
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
    for (const Answer& answer : heard_->answers) {
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
  std::shared_ptr<Heard> heard_ = std::make_shared<Heard>();
  std::shared_ptr<RequestMetrics> metrics_ = std::make_shared<RequestMetrics>("tiny", 100);
  SchedulerActor scheduler_;
  AdapterCacheActor cache_;
  TextPreparerActor text_preparer_;
  GatewayActor gateway_;
};

TEST_F(GatewayTest, StreamsAnAnswerAndEndsItOnce) {
  say(request("a"));
  ASSERT_EQ(heard_->submitted.size(), 1u);
  EXPECT_EQ(heard_->submitted[0]->prompt, tokenizer_->encode("Call me", true));
  const auto ids = generate(" Ishmael.");
  EXPECT_EQ(all<comm::Delta>().size(), ids.size());
  EXPECT_THAT(all<comm::Done>(), IsEmpty());
  happen({token(last_id(), kEos), finish(last_id(), FinishReason::stop, kEos)});
  EXPECT_EQ(text(), " Ishmael.");
  ASSERT_EQ(all<comm::Done>().size(), 1u);
  const auto done = all<comm::Done>()[0];
  EXPECT_EQ(done.id, "a");
  EXPECT_EQ(done.finish_reason, "stop");
  EXPECT_FALSE(done.stop_reason) << "none for the end of sequence";
  EXPECT_EQ(done.seed, heard_->submitted[0]->sampling.seed);
  EXPECT_EQ(done.usage.prompt_tokens, static_cast<int32_t>(heard_->submitted[0]->prompt.size()));
  EXPECT_EQ(done.usage.completion_tokens, static_cast<int32_t>(ids.size()) + 1);
  EXPECT_EQ(done.usage.total_tokens, done.usage.prompt_tokens + done.usage.completion_tokens);
  EXPECT_EQ(done.usage.cached_tokens, 1);
  happen({token(last_id(), 1), finish(last_id(), FinishReason::length)});
  EXPECT_EQ(all<comm::Done>().size(), 1u);
  EXPECT_EQ(heard_->answers.back().client, kClient);
}

TEST_F(GatewayTest, EndsARequestThatTakesTooLong) {
  say(request("a"));
  advance(std::chrono::milliseconds(9000));
  say(request("b"));
  const SequenceId later = last_id();
  advance(std::chrono::milliseconds(900));
  EXPECT_THAT(heard_->finished, IsEmpty());
  advance(std::chrono::milliseconds(500));
  ASSERT_EQ(heard_->finished.size(), 1u);
  EXPECT_NE(heard_->finished[0].id, later);
  EXPECT_EQ(heard_->finished[0].reason, FinishReason::abort);
  EXPECT_THAT(heard_->answers, IsEmpty());
  happen({finish(heard_->finished[0].id, FinishReason::abort)});
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].id, "a");
  EXPECT_EQ(all<comm::Failure>()[0].code, "timed_out");
  EXPECT_THAT(all<comm::Failure>()[0].message, HasSubstr("within 10 s"));
  EXPECT_THAT(all<comm::Done>(), IsEmpty());
}

TEST_F(GatewayTest, LetsWhatRunsEndWhenItDrainsAndTakesNothingNew) {
  say(request("a"));
  const SequenceId running = last_id();
  bool drained = false;
  auto pending = self_->request(gateway_, caf::infinite, Drain{"the server is going away"});
  run();
  say(request("b"));
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].id, "b");
  EXPECT_EQ(all<comm::Failure>()[0].code, "shutting_down");
  EXPECT_EQ(heard_->submitted.size(), 1u);
  happen({token(running, 5), finish(running, FinishReason::length)});
  EXPECT_EQ(all<comm::Done>().size(), 1u);
  pending.receive([&](bool) { drained = true; }, [](caf::error&) {});
  EXPECT_TRUE(drained);
  EXPECT_TRUE(ask<bool>(gateway_, Drain{"again"}));  // nothing is left
}

TEST_F(GatewayTest, CountsWhatHappensToRequests) {
  const auto count = [this](const std::string& name) {
    double sum = 0;
    for (const auto& family : metrics_->collect()) {
      for (const auto& metric : family.metric) sum += family.name == name ? metric.counter.value : 0;
    }
    return sum;
  };
  say(request("a"));
  generate(" Ishmael.");
  const auto streamed = all<comm::Delta>().size();
  happen({token(last_id(), 5), finish(last_id(), FinishReason::length)});
  EXPECT_EQ(count("vllm:generation_tokens_total"), static_cast<double>(streamed + 1));
  EXPECT_EQ(count("vllm:prompt_tokens_total"), static_cast<double>(heard_->submitted[0]->prompt.size()));
  EXPECT_EQ(count("vllm:request_success_total"), 1);
}

// A server that looks for reasoning and calls of tools in answers.
class GatewayChatTest : public GatewayTest {
 protected:
  void SetUp() override {
    const auto dir = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";
    auto context = validation_->context();
    context.chat_template = model::ChatTemplate::load(dir, *tokenizer_, "qwen3");
    context.max_model_len = 1000;
    context.chat.enable_auto_tool_choice = true;
    context.chat.tool_call_parser = "hermes";
    context.chat.reasoning_parser = "qwen3";
    plain_ = std::exchange(validation_, std::make_shared<RequestValidation>(std::move(context)));
    GatewayTest::SetUp();
  }
  void TearDown() override {
    GatewayTest::TearDown();
    validation_ = plain_;
  }

  static comm::GenerateRequest chat(const std::string& id) {
    comm::GenerateRequest made;
    made.id = id;
    made.messages.emplace().push_back({"user", "How warm?"});
    made.tools = {{R"({"type": "function", "function": {"name": "f"}})"}};
    return made;
  }

  std::string reasoning() {
    std::string joined;
    for (const auto& delta : all<comm::Delta>()) joined += delta.reasoning.value_or("");
    return joined;
  }
  std::vector<comm::ToolCall> calls() {
    std::vector<comm::ToolCall> made;
    for (const auto& delta : all<comm::Delta>()) comm::add_tool_calls(delta.tool_calls, made);
    return made;
  }

  std::shared_ptr<const RequestValidation> plain_;
};

TEST_F(GatewayChatTest, TellsReasoningAndCallsFromWhatIsSaid) {
  say(chat("a"));
  const auto thought = generate("<think>\nHm, well\n</think>");
  const auto rest = generate(
      "\n\nLet me look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>\n"
      "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>");
  happen({token(last_id(), kEos), finish(last_id(), FinishReason::stop, kEos)});
  EXPECT_EQ(text(), "Let me look.");
  EXPECT_EQ(reasoning(), "Hm, well");
  const auto made = calls();
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(made[0].name, "f");
  EXPECT_EQ(made[0].arguments, R"({"city": "Oslo"})");
  EXPECT_EQ(made[0].id.rfind("call_", 0), 0u);
  EXPECT_NE(made[0].id, made[1].id);
  int pieces = 0;
  for (const auto& delta : all<comm::Delta>()) pieces += delta.tool_calls.empty() ? 0 : 1;
  EXPECT_GT(pieces, 3) << "arguments come as they are written";
  const auto done = all<comm::Done>().at(0);
  EXPECT_EQ(done.finish_reason, "tool_calls");
  EXPECT_EQ(done.usage.completion_tokens, static_cast<int32_t>(thought.size() + rest.size()) + 1);
  int32_t opening = 0;  // tokens before the one that makes the tag whole
  for (std::string so_far; so_far.find("<think>") == std::string::npos; ++opening) {
    so_far += tokenizer_->bytes_of(thought[static_cast<size_t>(opening)]);
  }
  EXPECT_EQ(done.usage.reasoning_tokens, static_cast<int32_t>(thought.size()) - opening + 1);
}

TEST_F(GatewayChatTest, KeepsAFinishReasonOfItsOwnWhereACallWasCutOff) {
  auto named = chat("a");
  named.include_reasoning = false;
  say(named);
  generate("<think>x</think><tool_call>{\"name\": \"f\", \"arguments\": {\"a");
  happen({finish(last_id(), FinishReason::length)});
  EXPECT_EQ(reasoning(), "");
  EXPECT_EQ(calls().at(0).arguments, "{\"a");
  EXPECT_EQ(all<comm::Done>().at(0).finish_reason, "length");
}

TEST_F(GatewayChatTest, LeavesAPromptsAnswerAsItIs) {
  say(request("a"));
  generate("<think>x</think>");
  happen({finish(last_id(), FinishReason::length)});
  EXPECT_EQ(text(), "<think>x</think>");
  EXPECT_EQ(all<comm::Done>().at(0).usage.reasoning_tokens, 0);
}

TEST_F(GatewayChatTest, RefusesWhatIsAskedOfAnAnswerInVain) {
  auto asks = chat("a");
  asks.tool_choice = comm::JsonText{R"("perhaps")"};
  say(asks);
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "invalid_request");
  EXPECT_THAT(all<comm::Failure>()[0].message, HasSubstr("tool_choice must be"));
}

TEST_F(GatewayTest, EndsTheAnswerWithTheTokenThatCompletesAStopString) {
  auto with_stop = request("a");
  with_stop.stop = {"mael"};
  say(with_stop);
  const auto ids = tokenizer_->encode(" Ishmael. Some years ago", false);
  for (const int32_t id : ids) happen({token(last_id(), id)});
  ASSERT_EQ(heard_->finished.size(), 1u);
  EXPECT_EQ(heard_->finished[0].reason, FinishReason::stop);
  EXPECT_THAT(all<comm::Done>(), IsEmpty());
  happen({finish(last_id(), FinishReason::stop)});
  EXPECT_EQ(text(), " Ish");
  const auto done = all<comm::Done>().at(0);
  EXPECT_EQ(done.finish_reason, "stop");
  EXPECT_EQ(done.stop_reason, "mael");
  size_t streamed = 0;
  for (const auto& delta : all<comm::Delta>()) streamed += delta.token_ids.size();
  EXPECT_EQ(done.usage.completion_tokens, static_cast<int32_t>(streamed));
  EXPECT_LT(streamed, ids.size()) << "what was computed ahead is dropped";
}

TEST_F(GatewayTest, IsContentWithAStopStringWhenTheRanksAreLostAfterIt) {
  auto with_stop = request("a");
  with_stop.stop = {"mael"};
  say(with_stop);
  generate(" Ishmael");
  happen({engine::FailEvent{last_id(), {engine::ErrorCode::rank_lost, "rank 1 died"}}});
  EXPECT_THAT(all<comm::Failure>(), IsEmpty());
  EXPECT_EQ(all<comm::Done>().at(0).stop_reason, "mael");
}

TEST_F(GatewayTest, AnswersMaxTokensZeroWithThePromptAlone) {
  auto scoring = request("a");
  scoring.max_tokens = 0;
  scoring.prompt_logprobs = true;
  for (const int32_t drawn : {300, kEos}) {
    say(scoring);
    const auto size = heard_->submitted.back()->prompt.size();
    happen({engine::PromptLogprobsEvent{last_id(), 1, std::vector<float>(size - 1, -2.0F)}, token(last_id(), drawn),
            finish(last_id(), drawn == kEos ? FinishReason::stop : FinishReason::length, drawn == kEos ? kEos : -1)});
    const auto done = all<comm::Done>().back();
    EXPECT_EQ(done.finish_reason, "length");
    EXPECT_FALSE(done.stop_reason);
    EXPECT_EQ(done.usage.completion_tokens, 0);
    EXPECT_EQ(done.prompt_logprobs.size(), size);
  }
  EXPECT_THAT(all<comm::Delta>(), IsEmpty());
}

TEST_F(GatewayTest, NamesTheStopIdOfTheRequest) {
  auto with_id = request("a");
  with_id.stop_token_ids = {300};
  say(with_id);
  happen({token(last_id(), 300), finish(last_id(), FinishReason::stop, 300)});
  EXPECT_EQ(all<comm::Done>().at(0).stop_reason, "300");
  EXPECT_EQ(text(), "");
  EXPECT_THAT(all<comm::Delta>().at(0).token_ids, ElementsAre(300));
}

TEST_F(GatewayTest, GivesHeldBackTextWithTheEnd) {
  auto with_stop = request("a");
  with_stop.stop = {"years and"};
  say(with_stop);
  generate("Some years");
  happen({finish(last_id(), FinishReason::length)});
  EXPECT_EQ(text(), "Some years");
  EXPECT_EQ(all<comm::Done>().at(0).finish_reason, "length");
  EXPECT_TRUE(std::holds_alternative<comm::Done>(heard_->answers.back().message)) << "the final answer is the last";
}

TEST_F(GatewayTest, GivesLogprobsWhereTheyAreWanted) {
  auto wanting = request("a");
  wanting.logprobs = 2;
  wanting.prompt_logprobs = true;
  say(wanting);
  auto event = token(last_id(), 300);
  event.logprobs = {{301, -0.5F}, {300, -1.0F}};
  const auto size = heard_->submitted[0]->prompt.size();
  happen({engine::PromptLogprobsEvent{last_id(), 1, std::vector<float>(size - 1, -2.0F)}, event,
          finish(last_id(), FinishReason::length)});
  EXPECT_EQ(all<comm::Delta>().at(0).logprobs.at(0), (comm::TokenLogprobs{{301, -0.5F}, {300, -1.0F}}));
  const auto done = all<comm::Done>().at(0);
  ASSERT_EQ(done.prompt_logprobs.size(), size);
  EXPECT_FALSE(done.prompt_logprobs[0]);
  EXPECT_EQ(done.prompt_logprobs[1], -2.0F);
  say(request("b"));
  happen({token(last_id(), 300), finish(last_id(), FinishReason::length)});
  EXPECT_THAT(all<comm::Delta>().back().logprobs, IsEmpty());
  EXPECT_THAT(all<comm::Done>().back().prompt_logprobs, IsEmpty());
}

TEST_F(GatewayTest, RefusesAWrongRequestWithItsSentence) {
  auto wrong = request("a");
  wrong.temperature = -1;
  say(wrong);
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].id, "a");
  EXPECT_EQ(all<comm::Failure>()[0].code, "invalid_request");
  EXPECT_THAT(all<comm::Failure>()[0].message, HasSubstr("temperature is -1"));
  auto unknown = request("b");
  unknown.adapter = "nope";
  say(unknown);
  EXPECT_EQ(all<comm::Failure>()[1].code, "unknown_adapter");
  say(request(std::string(2000, 'x')));
  EXPECT_THAT(all<comm::Failure>()[2].message, HasSubstr("2000 bytes"));
  EXPECT_THAT(heard_->submitted, IsEmpty());
}

TEST_F(GatewayTest, RefusesTheIdOfARunningRequestToTheSameClientAlone) {
  say(request("a"));
  say(request("a"));
  EXPECT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].id, "duplicate:a") << "or it would pass for the end of the one that runs";
  EXPECT_THAT(all<comm::Failure>()[0].message, HasSubstr("\"a\""));
  say(request("duplicate:b"));
  say(request("b"));
  say(request("b"));
  EXPECT_EQ(all<comm::Failure>()[1].id, "duplicate:b'");
  happen(
      {finish(heard_->submitted[1]->id, FinishReason::length), finish(heard_->submitted[2]->id, FinishReason::length)});
  heard_->submitted.resize(1);
  say(request("a"), kClient + 1);
  EXPECT_EQ(heard_->submitted.size(), 2u);
  happen({finish(heard_->submitted[0]->id, FinishReason::length)});
  say(request("a"));
  EXPECT_EQ(heard_->submitted.size(), 3u);
}

TEST_F(GatewayTest, CancelsARequestOfItsOwnClientOnly) {
  say(request("a"));
  say(comm::Cancel{"a"}, kClient + 1);
  say(comm::Cancel{"b"});
  EXPECT_THAT(heard_->finished, IsEmpty());
  say(comm::Cancel{"a"});
  ASSERT_EQ(heard_->finished.size(), 1u);
  EXPECT_EQ(heard_->finished[0].reason, FinishReason::abort);
  happen({finish(last_id(), FinishReason::abort)});
  EXPECT_EQ(all<comm::Done>().at(0).finish_reason, "abort");
}

TEST_F(GatewayTest, CancelsEverythingOfAClientThatIsGoneAndAnswersNobody) {
  say(request("a"));
  say(request("b"));
  tell(gateway_, ClientGone{kClient});
  EXPECT_EQ(heard_->finished.size(), 2u);
  happen({token(last_id(), 300), finish(heard_->submitted[0]->id, FinishReason::abort),
          engine::FailEvent{heard_->submitted[1]->id, {engine::ErrorCode::rank_lost, "x"}}});
  EXPECT_THAT(heard_->answers, IsEmpty());
}

TEST_F(GatewayTest, PassesOnTheErrorOfTheEngine) {
  say(request("a"));
  generate("Some");
  happen({engine::FailEvent{last_id(), {engine::ErrorCode::rank_lost, "rank 1 died"}}});
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "rank_lost");
  EXPECT_EQ(all<comm::Failure>()[0].message, "rank 1 died");
}

TEST_F(GatewayTest, DrawsAnotherSeedForEveryRequestAndReportsIt) {
  say(request("a"));
  say(request("b"));
  const auto first = heard_->submitted[0]->sampling.seed, second = heard_->submitted[1]->sampling.seed;
  EXPECT_NE(first, second);
  EXPECT_LT(first, 1ULL << 53) << "JSON numbers keep it";
  happen({finish(heard_->submitted[1]->id, FinishReason::length)});
  EXPECT_EQ(all<comm::Done>().at(0).seed, second);
}

TEST_F(GatewayTest, GathersTheStatus) {
  say(comm::StatusRequest{"s"});
  ASSERT_EQ(all<comm::StatusReply>().size(), 1u);
  EXPECT_EQ(all<comm::StatusReply>()[0].id, "s");
  const auto json = nlohmann::json::parse(all<comm::StatusReply>()[0].json);
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["supervisor"]["pid"], 42);
  EXPECT_EQ(json["zmq"], "tcp://here");
  EXPECT_TRUE(json["adapters"].is_array());
}

// Longer than the gateway tokenizes itself in these tests, and short enough for the model.
comm::GenerateRequest long_request(const std::string& id) {
  comm::GenerateRequest made;
  made.id = id;
  made.prompt = "It is a way I have of driving off the spleen and regulating the circulation.";
  return made;
}

TEST_F(GatewayTest, LetsLongTextsBePreparedElsewhereAndServesOthersMeanwhile) {
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(long_request("long"))});
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(long_request("long"))});
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(request("short"))});
  run();
  ASSERT_EQ(heard_->submitted.size(), 2u);
  EXPECT_LT(heard_->submitted[0]->prompt.size(), heard_->submitted[1]->prompt.size()) << "the short one came first";
  EXPECT_EQ(heard_->submitted[1]->prompt, tokenizer_->encode(*long_request("").prompt, true));
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_THAT(all<comm::Failure>()[0].message, HasSubstr("still running")) << "the second one of its name";
  happen({finish(heard_->submitted[1]->id, FinishReason::length)});
  EXPECT_EQ(all<comm::Done>().at(0).id, "long");
}

TEST_F(GatewayTest, EndsARequestWhoseTextIsBeingPrepared) {
  const auto send = [&](comm::ClientMessage message, uint64_t client) {
    self_->send(gateway_, ClientSaid{client, std::make_shared<comm::ClientMessage>(std::move(message))});
  };
  send(long_request("cancelled"), kClient);
  send(comm::Cancel{"cancelled"}, kClient);
  send(long_request("left"), kClient + 1);
  self_->send(gateway_, ClientGone{kClient + 1});
  run();
  EXPECT_THAT(heard_->submitted, IsEmpty());
  ASSERT_EQ(heard_->answers.size(), 1u);
  EXPECT_EQ(all<comm::Done>().at(0).finish_reason, "abort");
  send(long_request("stopped"), kClient);
  self_->send(gateway_, StopServing{"the server is going away"});
  run();
  EXPECT_EQ(all<comm::Failure>().at(0).code, "shutting_down");
  EXPECT_EQ(heard_->answers.size(), 2u);
}

TEST_F(GatewayTest, RefusesLongTextsPastTheirNumberAndThoseThatAreWrong) {
  for (const char* id : {"a", "b", "c"}) {
    auto made = long_request(id);
    if (std::string(id) == "b") made.adapter = "nobody";
    self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(made)});
  }
  run();
  ASSERT_EQ(all<comm::Failure>().size(), 2u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "queue_full");
  EXPECT_EQ(all<comm::Failure>()[0].id, "c");
  EXPECT_EQ(all<comm::Failure>()[1].code, "unknown_adapter");
  EXPECT_EQ(heard_->submitted.size(), 1u);
}

TEST_F(GatewayTest, RefusesLongTextsPastTheirBytesAndCountsThoseThatAreCancelledUntilTheyAreLetGoOf) {
  const auto send = [&](comm::ClientMessage message) {
    self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(std::move(message))});
  };
  auto large = long_request("large");
  large.prompt = std::string(kMaxLongBytes - 10, 'x');
  send(large);
  send(comm::Cancel{"large"});
  send(long_request("no room"));
  run();
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].id, "no room");
  EXPECT_EQ(all<comm::Failure>()[0].code, "queue_full");
  EXPECT_EQ(all<comm::Done>().at(0).id, "large");
  EXPECT_THAT(heard_->submitted, IsEmpty());
  send(long_request("room"));
  run();
  EXPECT_EQ(heard_->submitted.size(), 1u);
}

TEST_F(GatewayTest, LetsAMillionEmptyMessagesBePreparedElsewhere) {
  comm::GenerateRequest made = request("empty");
  made.prompt.reset();
  made.prompt_token_ids.reset();
  made.messages.emplace(1000, comm::Message{"", ""});
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(made)});
  self_->send(gateway_, ClientSaid{kClient, std::make_shared<comm::ClientMessage>(request("short"))});
  run();
  EXPECT_EQ(heard_->submitted.size(), 1u);
  ASSERT_EQ(all<comm::Failure>().size(), 1u) << "too long for this model";
  EXPECT_EQ(all<comm::Failure>()[0].id, "empty");
}

TEST_F(GatewayTest, AnswersEverythingBeforeItEnds) {
  say(request("a"));
  say(request("b"), kClient + 1);
  tell(gateway_, StopServing{"the server is going away"});
  ASSERT_EQ(all<comm::Failure>().size(), 2u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "shutting_down");
  EXPECT_EQ(heard_->answers[1].client, kClient + 1);
}

}  // namespace
}  // namespace lorikeet::actors
