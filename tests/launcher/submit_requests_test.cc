#include "launcher/submit_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

using testing::ElementsAre;

std::vector<std::string> labels(const SubmitPlan& plan) {
  std::vector<std::string> labels;
  const std::vector<LabelledRequest> requests = make_requests(plan).value();
  for (const LabelledRequest& request : requests) labels.push_back(request.label);
  return labels;
}

TEST(SubmitRequests, LabelsPromptsOfOneAdapterByTheirBeginnings) {
  SubmitPlan plan;
  plan.adapters = {"kjv"};
  plan.prompts = {"And it came to pass in those days", "In the\nbeginning"};
  EXPECT_THAT(labels(plan), ElementsAre("And it came to pa...", "In the beginning"));
  plan.prompts = {"good", "", "also"};
  EXPECT_THAT(labels(plan), ElementsAre("good", "\"\"", "also"));
}

TEST(SubmitRequests, LabelsAdaptersByTheirNamesAndNumbersWhatIsEqual) {
  SubmitPlan plan;
  plan.prompts = {"It was"};
  plan.adapters = {"-", "kjv", "kjv"};
  EXPECT_THAT(labels(plan), ElementsAre("(base model)", "kjv", "kjv (2)"));
  plan.prompts = {"one", "two", "three"};
  EXPECT_THAT(labels(plan), ElementsAre("(base model): one", "kjv: two", "kjv: three"));
}

TEST(SubmitRequests, AsksForSeveralAnswersFromSeedsOneAfterTheOther) {
  SubmitPlan plan;
  plan.prompts = {"It was"};
  plan.answers = 2;
  plan.sampling.seed = 7;
  const auto requests = make_requests(plan).value();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].request.seed, 7u);
  EXPECT_EQ(requests[1].request.seed, 8u);
  EXPECT_EQ(requests[1].request.id, "1");
  EXPECT_THAT(labels(plan), ElementsAre("(base model) #1", "(base model) #2"));
  plan.sampling.seed.reset();
  EXPECT_FALSE(make_requests(plan).value()[1].request.seed) << "the server draws them";
}

TEST(SubmitRequests, MakesAChatOfASystemsMessage) {
  SubmitPlan plan;
  plan.prompts = {"Hello"};
  EXPECT_EQ(make_requests(plan).value()[0].request.prompt, "Hello");
  plan.system = "Be brief.";
  const auto request = make_requests(plan).value()[0].request;
  EXPECT_FALSE(request.prompt);
  ASSERT_EQ(request.messages->size(), 2u);
  EXPECT_EQ(request.messages->at(0).role, "system");
  EXPECT_EQ(request.messages->at(1).content, "Hello");
}

TEST(SubmitRequests, SendsTokenIdsAsTheyAreBehindThePromptsOfText) {
  SubmitPlan plan;
  plan.prompts = {"It was"};
  plan.token_prompts = {{3, 1, 4}, {}};
  const auto requests = make_requests(plan).value();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].request.prompt, "It was");
  EXPECT_FALSE(requests[0].request.prompt_token_ids || requests[1].request.prompt);
  EXPECT_EQ(requests[1].request.prompt_token_ids, (std::vector<int32_t>{3, 1, 4}));
  EXPECT_EQ(requests[2].request.prompt_token_ids, std::vector<int32_t>());
  EXPECT_THAT(labels(plan), ElementsAre("It was", "3,1,4", ""));
  plan.chat = true;
  EXPECT_EQ(make_requests(plan).error().message,
            "--prompt-token-ids are a whole prompt; --chat and --system make one of a text");
}

TEST(SubmitRequests, TakesNumbersForTextOnlyWhereNoPromptIsIds) {
  SubmitPlan plan;
  plan.prompts = {"2"};
  EXPECT_TRUE(check_prompts(plan));
  plan.token_prompts = {{1}};
  for (const char* text : {"-", ",", " ", "2 hats"}) {
    plan.prompts = {text};
    EXPECT_TRUE(check_prompts(plan)) << text;
  }
  plan.prompts = {"x", "2"};
  EXPECT_EQ(check_prompts(plan).error().message,
            "the prompt 2 would be text: the ids of a prompt are one value, such as --prompt-token-ids 1,2,3");
}

TEST(SubmitRequests, RefusesNumbersThatDoNotFit) {
  SubmitPlan plan;
  plan.prompts = {"one", "two", "three"};
  plan.adapters = {"a", "b"};
  EXPECT_EQ(make_requests(plan).error().message,
            "3 prompts and 2 adapters: give as many of one as of the other, or one of either");
}

}  // namespace
}  // namespace lorikeet::launcher
