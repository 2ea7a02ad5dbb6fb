#include "launcher/submit_requests.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "comm/client/adapter_request.h"
#include "kernels/base/printable.h"
#include "launcher/terminal.h"

namespace lorikeet::launcher {
namespace {

constexpr size_t kPromptColumns = 20;  // of a label

size_t prompts_of(const SubmitPlan& plan) {
  return plan.prompts.size() + plan.token_prompts.size();
}

comm::GenerateRequest make_request(const SubmitPlan& plan, size_t index, const std::string& adapter, int32_t answer) {
  comm::GenerateRequest request = plan.sampling;
  if (index >= plan.prompts.size()) {
    request.prompt_token_ids = plan.token_prompts[index - plan.prompts.size()];
  } else if (const std::string& prompt = plan.prompts[index]; plan.chat || plan.system) {
    std::vector<comm::Message> messages;
    if (plan.system) messages.push_back({"system", *plan.system});
    messages.push_back({"user", prompt});
    request.messages = std::move(messages);
  } else {
    request.prompt = prompt;
  }
  if (adapter != comm::kBaseModel) request.adapter = adapter;
  if (request.seed) *request.seed += static_cast<uint64_t>(answer);
  return request;
}

// As the shell leaves ids that were written with spaces between them.
bool is_list_of_numbers(const std::string& prompt) {
  constexpr const char* kDigits = "0123456789";
  return prompt.find_first_of(kDigits) != std::string::npos &&
         prompt.find_first_not_of(std::string(kDigits) + ", ") == std::string::npos;
}

std::string shown_prompt(const SubmitPlan& plan, size_t index) {
  if (index < plan.prompts.size()) return plan.prompts[index].empty() ? "\"\"" : plan.prompts[index];
  const std::vector<int32_t>& ids = plan.token_prompts[index - plan.prompts.size()];
  return fmt::format("{}", fmt::join(ids.begin(), ids.begin() + std::min(ids.size(), kPromptColumns), ","));
}

// What tells the requests apart, and no more: adapter, beginning of the prompt, number of the answer.
std::string label_of(const SubmitPlan& plan, size_t index, const std::string& adapter, int32_t answer) {
  std::string label;
  if (prompts_of(plan) == 1 || plan.adapters.size() > 1) label = adapter == comm::kBaseModel ? "(base model)" : adapter;
  if (prompts_of(plan) > 1) label += (label.empty() ? "" : ": ") + shortened(shown_prompt(plan, index), kPromptColumns);
  if (plan.answers > 1) label += fmt::format(" #{}", answer + 1);
  return label;
}

// Equal beginnings are numbered.
void make_distinct(std::vector<LabelledRequest>& requests) {
  std::set<std::string> seen;
  for (LabelledRequest& request : requests) {
    const std::string label = request.label;
    for (int number = 2; !seen.insert(request.label).second; ++number) {
      request.label = fmt::format("{} ({})", label, number);
    }
  }
}

}  // namespace

Result<void> check_prompts(const SubmitPlan& plan) {
  const auto numbers = std::find_if(plan.prompts.begin(), plan.prompts.end(), is_list_of_numbers);
  if (plan.token_prompts.empty() || numbers == plan.prompts.end()) return {};
  return fail("the prompt {} would be text: the ids of a prompt are one value, such as --prompt-token-ids 1,2,3",
              printable(*numbers));
}

Result<std::vector<LabelledRequest>> make_requests(const SubmitPlan& plan) {
  const std::vector<std::string> adapters =
      plan.adapters.empty() ? std::vector<std::string>{comm::kBaseModel} : plan.adapters;
  const size_t prompts = prompts_of(plan);
  if (!plan.token_prompts.empty() && (plan.chat || plan.system)) {
    return fail("--prompt-token-ids are a whole prompt; --chat and --system make one of a text");
  }
  if (prompts != adapters.size() && prompts != 1 && adapters.size() != 1) {
    return fail("{} prompts and {} adapters: give as many of one as of the other, or one of either", prompts,
                adapters.size());
  }
  std::vector<LabelledRequest> requests;
  for (size_t i = 0; i < std::max(prompts, adapters.size()); ++i) {
    const size_t prompt = prompts == 1 ? 0 : i;
    const std::string& adapter = adapters[adapters.size() == 1 ? 0 : i];
    for (int32_t answer = 0; answer < plan.answers; ++answer) {
      requests.push_back({make_request(plan, prompt, adapter, answer), label_of(plan, prompt, adapter, answer)});
      requests.back().request.id = std::to_string(requests.size() - 1);
    }
  }
  make_distinct(requests);
  return requests;
}

}  // namespace lorikeet::launcher
