#include "actors/head/gateway.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/actors/head/gateway_fixture.h"

namespace lorikeet::actors {
namespace {

using engine::FinishReason;
using engine::SequenceId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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

TEST_F(GatewayTest, EndsARequestAtItsOwnDeadlineWhereThatIsSooner) {
  auto hasty = request("hasty");
  hasty.timeout = 1.5;
  auto patient = request("patient");
  patient.timeout = 1000;
  say(patient);
  say(hasty);
  const SequenceId soon = last_id();
  advance(std::chrono::milliseconds(1400));
  EXPECT_THAT(heard_->finished, IsEmpty());
  advance(std::chrono::milliseconds(500));
  ASSERT_EQ(heard_->finished.size(), 1u);
  EXPECT_EQ(heard_->finished[0].id, soon);
  happen({finish(soon, FinishReason::abort)});
  EXPECT_EQ(all<comm::Failure>()[0].code, "timed_out");
  EXPECT_THAT(all<comm::Failure>()[0].message, HasSubstr("within 1.5 s (timeout)"));
  advance(std::chrono::milliseconds(9000));
  ASSERT_EQ(heard_->finished.size(), 2u) << "the server's own limit holds for the other";
  auto wrong = request("wrong");
  wrong.timeout = 0;
  say(wrong);
  EXPECT_THAT(all<comm::Failure>().back().message, HasSubstr("timeout is 0 s"));
}

TEST_F(GatewayTest, ReturnsThePromptsTokensWhereTheyAreWanted) {
  auto wanting = request("a");
  wanting.return_token_ids = true;
  wanting.truncate_prompt_tokens = 1;
  say(wanting);
  const auto prompt = heard_->submitted.back()->prompt;
  EXPECT_EQ(prompt.size(), 1u);
  happen({token(last_id(), 5), finish(last_id(), FinishReason::length)});
  EXPECT_EQ(all<comm::Done>().back().prompt_token_ids, prompt);
  say(request("b"));
  happen({token(last_id(), 5), finish(last_id(), FinishReason::length)});
  EXPECT_THAT(all<comm::Done>().back().prompt_token_ids, IsEmpty());
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

TEST_F(GatewayTest, DrainsAtOnceWhereNoRanksHaveEverServed) {
  say(request("a"));
  EXPECT_TRUE(ask<bool>(gateway_, Drain{"the server is going away", false}));
  say(request("b"));
  EXPECT_EQ(all<comm::Failure>().at(0).code, "shutting_down");
  tell(gateway_, StopServing{"the server is going away"});
  EXPECT_EQ(all<comm::Failure>().at(1).id, "a");
  EXPECT_EQ(all<comm::Failure>().at(1).code, "shutting_down");
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
  EXPECT_EQ(done.stop_reason, comm::StopReason("mael"));
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
  EXPECT_EQ(all<comm::Done>().at(0).stop_reason, comm::StopReason("mael"));
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
  EXPECT_EQ(all<comm::Done>().at(0).stop_reason, comm::StopReason(300));
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

TEST_F(GatewayTest, GivesRanksAndBestTokensOfThePromptWhereTheyAreWanted) {
  auto wanting = request("a");
  wanting.prompt_top_logprobs = 1;
  say(wanting);
  const auto size = heard_->submitted[0]->prompt.size();
  ASSERT_GE(size, 3u);
  EXPECT_TRUE(heard_->submitted[0]->sampling.prompt_logprobs);
  engine::PromptLogprobsEvent first{last_id(), 1, {-2}, {4}, {{{9, -0.5F}}}};
  engine::PromptLogprobsEvent rest{last_id(), 2, std::vector<float>(size - 2, -3), std::vector<int32_t>(size - 2, 1),
                                   std::vector<std::vector<engine::TokenLogprob>>(size - 2)};
  happen({first, rest, token(last_id(), 300), finish(last_id(), FinishReason::length)});
  const auto done = all<comm::Done>().at(0);
  ASSERT_EQ(done.prompt_ranks.size(), size);
  EXPECT_EQ(done.prompt_ranks[0], 0);
  EXPECT_EQ(done.prompt_ranks[1], 4);
  EXPECT_EQ(done.prompt_ranks[2], 1);
  EXPECT_EQ(done.prompt_top_logprobs.at(1), (comm::TokenLogprobs{{9, -0.5F}}));
  EXPECT_EQ(done.prompt_logprobs.at(1), -2.0F);
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

TEST_F(GatewayTest, HandsChangesOfAdaptersToTheirCache) {
  say(comm::AdapterRequest{"1", "load", "moby", "/moby", false});
  ASSERT_EQ(all<comm::AdapterReply>().size(), 1u);
  EXPECT_EQ(all<comm::AdapterReply>()[0].id, "1");
  EXPECT_EQ(all<comm::AdapterReply>()[0].message, "load moby");
  say(comm::AdapterRequest{"2", "unload", "none", std::nullopt, false});
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].id, "2");
  EXPECT_EQ(all<comm::Failure>()[0].code, "unknown_adapter");
  say(comm::AdapterRequest{"3", "list", std::nullopt, std::nullopt, false});
  EXPECT_EQ(nlohmann::json::parse(all<comm::AdapterReply>().at(1).json.value()),
            nlohmann::json::parse(R"({"adapters": [{"name": "kjv", "digest": "d", "tier": "slot", "slot": 2, "rank": 16,
              "bytes": 4096, "leases": 1, "claims": 3, "pinned": true, "set_aside": false, "replaced": false,
              "directory": "/kjv", "error": null}]})"));
}

TEST_F(GatewayTest, AnswersChangesOfAdaptersThatItsEndInterrupts) {
  say(comm::AdapterRequest{"1", "load", "slow", "/slow", false});
  EXPECT_TRUE(all<comm::AdapterReply>().empty());
  tell(gateway_, StopServing{"it is late"});
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].code, "shutting_down");
}

TEST_F(GatewayTest, ResetsThePrefixCache) {
  say(comm::ResetPrefixCacheRequest{"r"});
  ASSERT_EQ(all<comm::PrefixCacheReset>().size(), 1u);
  EXPECT_EQ(all<comm::PrefixCacheReset>()[0].id, "r");
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
