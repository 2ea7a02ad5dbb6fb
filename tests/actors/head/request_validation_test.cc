#include "actors/head/request_validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>

namespace lorikeet::actors {
namespace {

using engine::ErrorCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kDrawnSeed = 77;
constexpr int32_t kEnd = 2047;  // an end token of the model

class RequestValidationTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto dir = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";
    auto tokenizer = model::Tokenizer::load(dir).value();
    auto chat = model::ChatTemplate::load(dir, *tokenizer);
    context_ = std::make_unique<RequestValidation::Context>(
        RequestValidation::Context{model::read_model_config(dir).value(), model::read_generation_defaults(dir).value(),
                                   tokenizer, std::move(chat), 100, AdapterNames(AdapterNames::List{{"kjv", "/kjv"}})});
  }
  static void TearDownTestSuite() { context_.reset(); }

  static comm::GenerateRequest with_ids(std::vector<int32_t> ids = {1, 2, 3}) {
    comm::GenerateRequest request;
    request.prompt_token_ids = std::move(ids);
    return request;
  }

  tl::expected<PreparedRequest, engine::RequestError> prepare(const comm::GenerateRequest& request) const {
    return RequestValidation(*context_).prepare(request, kDrawnSeed);
  }

  void expect_refusal(const comm::GenerateRequest& request, ErrorCode code, const std::string& sentence) const {
    const auto prepared = prepare(request);
    ASSERT_FALSE(prepared) << sentence;
    EXPECT_EQ(prepared.error().code, code) << prepared.error().message;
    EXPECT_THAT(prepared.error().message, HasSubstr(sentence));
  }

  template <class T>
  void expect_range(std::optional<T> comm::GenerateRequest::*field, const std::vector<T>& good,
                    const std::vector<T>& bad, const std::string& sentence) const {
    for (const T value : good) {
      auto request = with_ids();
      request.*field = value;
      EXPECT_TRUE(prepare(request)) << sentence << " " << value;
    }
    for (const T value : bad) {
      auto request = with_ids();
      request.*field = value;
      expect_refusal(request, ErrorCode::invalid_request, sentence);
    }
  }

  static inline std::unique_ptr<RequestValidation::Context> context_;
};

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST_F(RequestValidationTest, FillsInTheDefaultsOfTheCheckpoint) {
  const auto prepared = prepare(with_ids()).value();
  const engine::SamplingParams& sampling = prepared.request.sampling;
  EXPECT_THAT(prepared.request.prompt, ElementsAre(1, 2, 3));
  EXPECT_FLOAT_EQ(sampling.temperature, 0.7F);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.8F);
  EXPECT_EQ(sampling.top_k, 20);
  EXPECT_FLOAT_EQ(sampling.repetition_penalty, 1.05F);
  EXPECT_EQ(sampling.min_p, 0);
  EXPECT_EQ(sampling.presence_penalty, 0);
  EXPECT_EQ(sampling.max_tokens, 97);
  EXPECT_EQ(sampling.seed, kDrawnSeed);
  EXPECT_EQ(sampling.logprobs, -1);
  EXPECT_THAT(sampling.stop_token_ids, ElementsAre(2045, 2047));
  EXPECT_EQ(prepared.request.adapter, "");
  EXPECT_EQ(prepared.request.cache_salt, 0u);
}

TEST_F(RequestValidationTest, TakesTheNeutralValuesWhereNobodySaysAnything) {
  auto context = *context_;
  context.defaults = {};
  const auto prepared = RequestValidation(context).prepare(with_ids(), kDrawnSeed).value();
  EXPECT_EQ(prepared.request.sampling.temperature, 1);
  EXPECT_EQ(prepared.request.sampling.top_p, 1);
  EXPECT_EQ(prepared.request.sampling.top_k, 0);
  EXPECT_EQ(prepared.request.sampling.repetition_penalty, 1);
}

TEST_F(RequestValidationTest, BoundsOpenAnswersAsTheModelSays) {
  auto context = *context_;
  auto request = with_ids();
  const auto most = [&] { return RequestValidation(context).prepare(request, 0)->request.sampling.max_tokens; };
  context.defaults.max_new_tokens = 1000;
  EXPECT_EQ(most(), 97) << "what the context holds";
  context.defaults.max_new_tokens = 10;
  EXPECT_EQ(most(), 10);
  request.min_tokens = 12;
  EXPECT_EQ(most(), 12);
  request.max_tokens = 20;
  EXPECT_EQ(most(), 20);
}

TEST_F(RequestValidationTest, TakesTheValuesOfTheRequest) {
  auto request = with_ids();
  request.temperature = 0;
  request.top_p = 1;
  request.top_k = -1;
  request.min_p = 0.25;
  request.repetition_penalty = 2;
  request.presence_penalty = -2;
  request.frequency_penalty = 2;
  request.seed = 5;
  request.max_tokens = 97;
  request.logprobs = 3;
  request.prompt_logprobs = true;
  request.ignore_eos = true;
  request.stop_token_ids = {9, 9, 4};
  request.adapter = "kjv";
  const auto prepared = prepare(request).value();
  const engine::SamplingParams& sampling = prepared.request.sampling;
  EXPECT_EQ(sampling.temperature, 0);
  EXPECT_EQ(sampling.top_p, 1);
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_EQ(sampling.min_p, 0.25F);
  EXPECT_EQ(sampling.repetition_penalty, 2);
  EXPECT_EQ(sampling.presence_penalty, -2);
  EXPECT_EQ(sampling.frequency_penalty, 2);
  EXPECT_EQ(sampling.seed, 5u);
  EXPECT_EQ(sampling.max_tokens, 97);
  EXPECT_EQ(sampling.logprobs, 3);
  EXPECT_TRUE(sampling.prompt_logprobs);
  EXPECT_TRUE(sampling.ignore_eos);
  EXPECT_THAT(sampling.stop_token_ids, ElementsAre(4, 9));
  EXPECT_TRUE(prepared.eos_token_ids.empty());
  EXPECT_EQ(prepared.request.adapter, "kjv");
}

TEST_F(RequestValidationTest, RaisesTemperaturesThatWouldLoseTheLogits) {
  auto request = with_ids();
  request.temperature = 0.001;
  EXPECT_FLOAT_EQ(prepare(request)->request.sampling.temperature, 0.01F);
  request.temperature = 1e-6;
  EXPECT_LT(prepare(request)->request.sampling.temperature, 1e-5F) << "greedy stays greedy";
}

TEST_F(RequestValidationTest, RefusesAbsurdSamplingValues) {
  using Request = comm::GenerateRequest;
  expect_range<double>(&Request::temperature, {0, 2}, {-0.1, 2.1, kNan, kInfinity, 1e308}, "temperature is");
  expect_range<double>(&Request::top_p, {1, 0.001, 1e-300}, {0, -1, 1.1, kNan}, "top_p is");
  expect_range<double>(&Request::min_p, {0, 1}, {-0.1, 1.1, kNan}, "min_p is");
  expect_range<double>(&Request::repetition_penalty, {0.1, 10}, {0, -1, kNan, kInfinity, 1e300, 1e-300},
                       "repetition_penalty is");
  expect_range<double>(&Request::presence_penalty, {-2, 2}, {-2.1, 2.1, kNan}, "presence_penalty is");
  expect_range<double>(&Request::frequency_penalty, {-2, 2}, {-2.1, 2.1, kNan}, "frequency_penalty is");
  expect_range<int32_t>(&Request::top_k, {-1, 0, 1, 2'000'000'000}, {-2, -2'000'000'000}, "top_k is");
  expect_range<int32_t>(&Request::logprobs, {0, 20}, {-1, 21, 2'000'000'000}, "logprobs is");
  expect_range<int32_t>(&Request::max_tokens, {0, 1, 97}, {-1, -2'000'000'000}, "max_tokens is");
}

TEST_F(RequestValidationTest, TakesBiasesInOrderAndWithinOpenAisRange) {
  auto request = with_ids();
  request.logit_bias = {{9, 1000}, {3, -2.5}, {5, -kInfinity}};
  const auto bias = prepare(request)->request.sampling.logit_bias;
  EXPECT_EQ(bias, (std::vector<engine::LogitBias>{{3, -2.5F}, {5, -100}, {9, 100}}));
  request.logit_bias = {{2048, 1}};
  expect_refusal(request, ErrorCode::invalid_request, "logit_bias has token id 2048");
  request.logit_bias = {{7, 1}, {3, 1}, {7, 2}};
  expect_refusal(request, ErrorCode::invalid_request, "logit_bias has token id 7 twice");
  request.logit_bias = {{7, kNan}};
  expect_refusal(request, ErrorCode::invalid_request, "logit_bias of token id 7 is not a number");
}

TEST_F(RequestValidationTest, HoldsEndAndStopTokensBackForMinTokens) {
  auto request = with_ids();
  request.min_tokens = 4;
  request.stop_token_ids = {9};
  request.stop = {"end"};
  const auto prepared = prepare(request).value();
  EXPECT_EQ(prepared.request.sampling.min_tokens, 4);
  EXPECT_THAT(prepared.request.sampling.ids_after_min_tokens, ElementsAre(9, 2045, 2047));
  EXPECT_EQ(prepared.text.min_tokens, 4);
  request.ignore_eos = true;
  EXPECT_THAT(prepare(request)->request.sampling.ids_after_min_tokens, ElementsAre(9, 2045, 2047));
  EXPECT_THAT(prepare(with_ids())->request.sampling.ids_after_min_tokens, ::testing::IsEmpty());
  request.max_tokens = 3;
  expect_refusal(request, ErrorCode::invalid_request, "min_tokens is 4, above max_tokens 3");
  request.min_tokens = -1;
  expect_refusal(request, ErrorCode::invalid_request, "min_tokens is -1");
}

TEST_F(RequestValidationTest, RefusesAnEmptySetOfAllowedTokens) {
  auto request = with_ids();
  request.allowed_token_ids = {5, 2047};
  EXPECT_THAT(prepare(request)->request.sampling.allowed_token_ids, ElementsAre(5, 2047));
  request.allowed_token_ids->clear();
  expect_refusal(request, ErrorCode::invalid_request, "allowed_token_ids is empty");
  request.allowed_token_ids = {2048};
  expect_refusal(request, ErrorCode::invalid_request, "allowed_token_ids has 2048");
}

TEST_F(RequestValidationTest, RefusesAllowedTokensOfWhichNoneMayBeDrawn) {
  const auto& tokenizer = *context_->tokenizer;
  const int32_t letter = tokenizer.encode("&", true).at(0);
  ASSERT_EQ(tokenizer.encode("&", true).size(), 1u);
  auto request = with_ids();
  request.allowed_token_ids = {letter};
  request.bad_words = {"&"};
  expect_refusal(request, ErrorCode::invalid_request, "allowed_token_ids has no token that bad_words and min_tokens");
  EXPECT_EQ(prepare(request).error().field, "allowed_token_ids");
  request.allowed_token_ids = {letter, letter == 5 ? 6 : 5};
  EXPECT_TRUE(prepare(request));
  request.bad_words = {};
  request.allowed_token_ids = {kEnd};
  EXPECT_TRUE(prepare(request)) << "an answer without a word";
  request.min_tokens = 1;
  expect_refusal(request, ErrorCode::invalid_request, "allowed_token_ids has no token that");
}

TEST_F(RequestValidationTest, RefusesMoreAnswersThanMayRunOrWait) {
  auto context = *context_;
  context.max_answers = 4;
  const RequestValidation validation(std::move(context));
  auto request = with_ids();
  request.n = 4;
  EXPECT_TRUE(validation.prepare(request, kDrawnSeed));
  request.n = 5;
  const auto refused = validation.prepare(request, kDrawnSeed);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(),
            (engine::RequestError{ErrorCode::invalid_request,
                                  "the request asks for 5 answers, at most 4 may run or wait (--max-num-seqs, "
                                  "--max-num-queued-reqs)",
                                  "n"}));
}

TEST_F(RequestValidationTest, NamesTheFieldThatIsWrong) {
  using Request = comm::GenerateRequest;
  const std::pair<const char*, std::function<void(Request&)>> cases[] = {
      {"temperature", [](Request& r) { r.temperature = 3; }},
      {"top_p", [](Request& r) { r.top_p = 0; }},
      {"logit_bias",
       [](Request& r) {
         r.logit_bias = {{-1, 1.0}};
       }},
      {"stop", [](Request& r) { r.stop = {""}; }},
      {"stop_token_ids", [](Request& r) { r.stop_token_ids = {2048}; }},
      {"min_tokens", [](Request& r) { r.min_tokens = 98; }},
      {"timeout", [](Request& r) { r.timeout = 0; }}};
  for (const auto& [field, spoil] : cases) {
    auto request = with_ids();
    spoil(request);
    const auto refused = prepare(request);
    ASSERT_FALSE(refused) << field;
    EXPECT_EQ(refused.error().field, field);
    EXPECT_EQ(failure_of("a", refused.error()).field, field);
  }
  EXPECT_EQ(failure_of("a", prepare(with_ids({-1})).error()).field, std::nullopt);
}

// vLLM's rule: as it begins a text, and behind a space where that gives as many tokens that begin otherwise.
TEST_F(RequestValidationTest, SpellsBadWordsWithAndWithoutASpace) {
  const auto& tokenizer = *context_->tokenizer;
  auto request = with_ids();
  const std::vector<std::string> words = {"whale", "  sea", "the old man", "Ishmael", "\n", " "};
  for (const std::string& word : words) {
    request.bad_words = {word};
    const bool blank = word.find_first_not_of(" \n") == std::string::npos;
    const std::string bare = blank ? word : word.substr(word.find_first_not_of(' '));
    std::vector<std::vector<int32_t>> expected = {tokenizer.encode(bare, true)};
    const auto spaced = tokenizer.encode(" " + bare, true);
    if (!blank && spaced.size() == expected[0].size() && spaced[0] != expected[0][0]) expected.push_back(spaced);
    EXPECT_EQ(prepare(request)->request.sampling.bad_words, expected) << word;
  }
  request.bad_words = words;
  EXPECT_GT(prepare(request)->request.sampling.bad_words.size(), words.size());
  request.bad_words = {""};
  expect_refusal(request, ErrorCode::invalid_request, "bad_words has an empty string");
  auto context = *context_;
  context.tokenizer = nullptr;
  request.bad_words = {"x"};
  const auto refused = RequestValidation(context).prepare(request, 1);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("bad_words mean nothing"));
}

TEST_F(RequestValidationTest, KeepsTheEndOfAPromptThatIsToBeCut) {
  auto request = with_ids({1, 2, 3, 4, 5});
  request.truncate_prompt_tokens = 3;
  EXPECT_THAT(prepare(request)->request.prompt, ElementsAre(3, 4, 5));
  request.truncate_prompt_tokens = 50;
  EXPECT_EQ(prepare(request)->request.prompt.size(), 5u);
  auto long_one = with_ids(std::vector<int32_t>(300, 1));
  long_one.truncate_prompt_tokens = -1;
  EXPECT_EQ(prepare(long_one)->request.prompt.size(), 99u);
  long_one.max_tokens = 40;
  EXPECT_EQ(prepare(long_one)->request.prompt.size(), 60u);
  comm::GenerateRequest text;
  text.prompt = std::string(60'000, 'a') + " end";
  text.truncate_prompt_tokens = 2;
  const auto whole = context_->tokenizer->encode(*text.prompt, true);
  EXPECT_THAT(prepare(text)->request.prompt, ElementsAre(whole[whole.size() - 2], whole.back()));
  for (const int32_t wrong : {0, -2, 101}) {
    request.truncate_prompt_tokens = wrong;
    expect_refusal(request, ErrorCode::invalid_request, "truncate_prompt_tokens is " + std::to_string(wrong));
  }
}

TEST_F(RequestValidationTest, SharesPrefixesOnlyWithRequestsOfTheSameSalt) {
  auto request = with_ids();
  const auto salt = [&](std::optional<std::string> of_client) {
    request.cache_salt = std::move(of_client);
    return prepare(request)->request.cache_salt;
  };
  EXPECT_EQ(salt(std::nullopt), 0u);
  EXPECT_NE(salt("a"), 0u);
  EXPECT_EQ(salt("a"), salt("a"));
  EXPECT_NE(salt("a"), salt("b"));
  request.cache_salt = "";
  expect_refusal(request, ErrorCode::invalid_request, "cache_salt is empty");
}

TEST_F(RequestValidationTest, RefusesDeadlinesThatAreNone) {
  using Request = comm::GenerateRequest;
  expect_range<double>(&Request::timeout, {0.001, 1e6}, {0, -1, 1e7, kNan, kInfinity}, "timeout is");
}

TEST_F(RequestValidationTest, RefusesWhatDoesNotFitIntoTheContext) {
  expect_refusal(with_ids(std::vector<int32_t>(100, 1)), ErrorCode::too_long, "the prompt has 100 tokens");
  EXPECT_EQ(prepare(with_ids(std::vector<int32_t>(99, 1)))->request.sampling.max_tokens, 1);
  auto request = with_ids();
  request.max_tokens = 98;
  expect_refusal(request, ErrorCode::too_long, "3 prompt tokens and max_tokens 98 exceed the context of 100");
  request.max_tokens = std::numeric_limits<int32_t>::max();
  expect_refusal(request, ErrorCode::too_long, "exceed the context");
  comm::GenerateRequest text;
  text.prompt = std::string(60'000, 'a');
  expect_refusal(text, ErrorCode::too_long, "a prompt of 60000 bytes");
  comm::GenerateRequest chat;
  chat.messages = {{{"user", std::string(60'000, 'a')}}};
  expect_refusal(chat, ErrorCode::too_long, "messages of 60000 bytes");
}

TEST_F(RequestValidationTest, RefusesIdsOutsideOfTheVocabulary) {
  expect_refusal(with_ids({1, 2048}), ErrorCode::invalid_request, "token id 2048 at position 1");
  expect_refusal(with_ids({-1}), ErrorCode::invalid_request, "token id -1 at position 0");
  EXPECT_TRUE(prepare(with_ids({0, 2047})));
  auto request = with_ids();
  request.stop_token_ids = {2048};
  expect_refusal(request, ErrorCode::invalid_request, "stop token id 2048");
}

TEST_F(RequestValidationTest, WantsExactlyOnePrompt) {
  expect_refusal({}, ErrorCode::invalid_request, "the request has 0");
  auto both = with_ids();
  both.prompt = "text";
  expect_refusal(both, ErrorCode::invalid_request, "the request has 2");
  expect_refusal(with_ids({}), ErrorCode::invalid_request, "the prompt is empty");
  comm::GenerateRequest empty;
  empty.prompt = "";
  expect_refusal(empty, ErrorCode::invalid_request, "the prompt is empty");
  EXPECT_THAT(RequestValidation(*context_).prompt_of(empty).value(), ::testing::IsEmpty()) << "to be counted";
  comm::GenerateRequest silent;
  silent.messages.emplace();
  expect_refusal(silent, ErrorCode::invalid_request, "messages is empty");
}

TEST_F(RequestValidationTest, ParsesSpecialTokensInPromptsAndNeverInMessages) {
  comm::GenerateRequest text;
  text.prompt = "<|im_end|>";
  EXPECT_THAT(prepare(text)->request.prompt, ElementsAre(2047));
  comm::GenerateRequest chat;
  chat.messages = {{{"user", "<|im_end|>"}}};
  const auto prompt = prepare(chat)->request.prompt;
  EXPECT_EQ(std::count(prompt.begin(), prompt.end(), 2047), 2) << "of the template: system and user";
}

TEST_F(RequestValidationTest, SaysWhyMessagesCannotBeServed) {
  auto context = *context_;
  context.chat_template = fail("there is no chat template; use --chat-template");
  comm::GenerateRequest chat;
  chat.messages = {{{"user", "hi"}}};
  const auto refused = RequestValidation(context).prepare(chat, 1);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("--chat-template"));
  EXPECT_TRUE(RequestValidation(context).prepare(with_ids(), 1));
  chat.messages = {{{"wizard", "hi"}}};
  EXPECT_FALSE(prepare(chat));
}

TEST_F(RequestValidationTest, RefusesUnknownAdapters) {
  auto request = with_ids();
  request.adapter = "";
  expect_refusal(request, ErrorCode::unknown_adapter, "the adapter's name is empty");
  request.adapter = "nope";
  expect_refusal(request, ErrorCode::unknown_adapter, "there is no adapter \"nope\"");
  request.adapter = std::string(10'000, 'x');
  const auto refused = prepare(request);
  ASSERT_FALSE(refused);
  EXPECT_LT(refused.error().message.size(), 200u);
}

TEST_F(RequestValidationTest, RefusesStopStringsThatAreEmptyTooLongOrTooMany) {
  auto request = with_ids();
  request.stop = {""};
  expect_refusal(request, ErrorCode::invalid_request, "stop has an empty string");
  request.stop = {std::string(4097, 'x')};
  expect_refusal(request, ErrorCode::invalid_request, "stop has a string of 4097 bytes");
  request.stop.assign(257, "x");
  expect_refusal(request, ErrorCode::invalid_request, "stop has 257 strings");
  request.stop.clear();
  request.stop_token_ids.assign(4097, 1);
  expect_refusal(request, ErrorCode::invalid_request, "stop_token_ids has 4097 ids");
}

TEST_F(RequestValidationTest, TakesStopsUpToTheLimitsOfTheProtocol) {
  auto request = with_ids();
  request.stop.assign(256, std::string(4096, 'x'));
  for (int32_t i = 0; i < 4096; ++i) request.stop_token_ids.push_back(i % 2048);
  const auto prepared = prepare(request);
  ASSERT_TRUE(prepared) << prepared.error().message;
  EXPECT_EQ(prepared->text.stop.size(), 256u);
  EXPECT_EQ(prepared->request.sampling.stop_token_ids.size(), 2048u);
}

TEST_F(RequestValidationTest, EndsAtTheTokenizersEndTokenAndAtThoseOfTheGenerationConfig) {
  auto context = *context_;
  context.defaults.eos_token_ids = {7};
  const RequestValidation validation(context);
  const auto prepared = validation.prepare(with_ids(), kDrawnSeed).value();
  EXPECT_THAT(prepared.request.sampling.stop_token_ids, ElementsAre(7, context.tokenizer->eos_id()));
  EXPECT_THAT(prepared.eos_token_ids, ElementsAre(7, context.tokenizer->eos_id()));
  auto request = with_ids();
  request.ignore_eos = true;
  EXPECT_TRUE(validation.prepare(request, kDrawnSeed)->request.sampling.stop_token_ids.empty());
}

TEST_F(RequestValidationTest, KnowsNoEndTokensOutsideOfTheVocabulary) {
  auto context = *context_;
  context.defaults.eos_token_ids = {7, context.config.vocab_size, 2147483647};
  auto request = with_ids();
  request.min_tokens = 2;
  const auto prepared = RequestValidation(context).prepare(request, kDrawnSeed).value();
  EXPECT_THAT(prepared.request.sampling.stop_token_ids, ElementsAre(7, context.tokenizer->eos_id()));
  EXPECT_THAT(prepared.request.sampling.ids_after_min_tokens, ElementsAre(7, context.tokenizer->eos_id()));
  EXPECT_THAT(prepared.eos_token_ids, ElementsAre(7, context.tokenizer->eos_id()));
}

TEST_F(RequestValidationTest, MarksStopStringsThatSpellSpecialTokensOnlyWhereThoseAreLeftOut) {
  auto request = with_ids();
  request.stop = {"the end", "x<|im_end|>y"};
  EXPECT_THAT(prepare(request)->text.marked_stop, ElementsAre("", "x" + TextStream::marked("<|im_end|>") + "y"));
  request.skip_special_tokens = false;
  EXPECT_THAT(prepare(request)->text.marked_stop, ::testing::IsEmpty());
}

TEST_F(RequestValidationTest, ScoresAPromptAloneWithMaxTokensZero) {
  auto request = with_ids();
  request.max_tokens = 0;
  const auto prepared = prepare(request).value();
  EXPECT_TRUE(prepared.prompt_only);
  EXPECT_EQ(prepared.request.sampling.max_tokens, 1);
  EXPECT_FALSE(prepare(with_ids())->prompt_only);
}

TEST_F(RequestValidationTest, LetsOnlyAnAbsentMaxTokensShrinkToTheKvPool) {
  auto request = with_ids();
  EXPECT_TRUE(prepare(request)->request.max_tokens_may_shrink);
  request.max_tokens = 5;
  EXPECT_FALSE(prepare(request)->request.max_tokens_may_shrink);
}

TEST_F(RequestValidationTest, SaltsThePrefixCacheWithTheRotaryBaseOfDynamicNtk) {
  auto context = *context_;
  context.config.use_dynamic_ntk = true;
  context.config.seq_length = 16;
  const RequestValidation validation(context);
  const auto salt = [&](size_t size) {
    return validation.prepare(with_ids(std::vector<int32_t>(size, 1)), 1)->request.cache_salt;
  };
  EXPECT_EQ(salt(1), 1u);
  EXPECT_EQ(salt(16), 1u);
  EXPECT_EQ(salt(17), 3u);
  EXPECT_EQ(salt(32), 3u);
  EXPECT_EQ(salt(33), 7u);
  EXPECT_EQ(salt(65), 15u);
}

}  // namespace
}  // namespace lorikeet::actors
