#include "actors/rank/rank.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <caf/all.hpp>
#include <future>
#include <memory>
#include <variant>

#include "actors/rank/rank_backend.h"
#include "actors/rank/worker.h"
#include "actors/wire/child_process.h"
#include "actors/wire/system_config.h"
#include "kernels/base/console.h"
#include "kernels/base/thread_turns.h"
#include "model/config/config.h"
#include "model/grammar/grammar_source.h"

namespace lorikeet::actors {
namespace {

std::shared_ptr<model::GrammarSource> grammars_of(const std::string& dir, int32_t vocab_size) {
  return std::make_shared<model::GrammarSource>([dir, vocab_size]() -> Result<std::shared_ptr<model::GrammarCompiler>> {
    const auto tokenizer = model::Tokenizer::load(dir);
    if (!tokenizer) return tl::unexpected(tokenizer.error());
    return model::make_grammar_compiler(**tokenizer, vocab_size);
  });
}

}  // namespace

int run_rank() {
  auto attached = ChildProcess::attach();
  if (!attached) {
    say("lorikeet rank: {}", attached.error().message);
    return 2;
  }
  ChildProcess& child = **attached;
  const ChildStart& start = child.start();
  if (start.options.device == "cuda") kernels::take_short_turns();  // others read adapters beside the steps
  // NCCL reads it with the first communicator; "=" asks for this very name. What an operator has set stays.
  if (const std::string& name = start.place.interface_name; !name.empty()) {
    setenv("NCCL_SOCKET_IFNAME", ("=" + name).c_str(), 0);
  }
  // Listened to from the beginning, since it answers pings.
  std::promise<WorkerActor> spawned;
  // A rank has nothing to save, and what it computes belongs to an epoch that ends with it.
  child.listen([of = spawned.get_future().share()](const ChildOrder& order, Descriptor) {
    if (std::holds_alternative<control::Stop>(order)) _exit(0);
    if (const auto* leave = std::get_if<control::LeaveGroup>(&order)) {
      caf::anon_send(of.get(), LeaveGroup{leave->epoch});
    }
  });
  RankMemory memory;
  memory.inherited = child.take_regions();
  memory.hold = [&child](const RegionDescription& what, const Descriptor& descriptor) {
    child.tell(control::HoldRegion{what}, descriptor.get());
  };
  memory.drop = [&child] { child.tell(control::DropRegions{}); };
  memory.drop_one = [&child](const std::string& name) { child.tell(control::DropRegions{name}); };
  memory.say = [&child](const std::string& sentence) {
    child.tell(control::Progress{fmt::format("rank {}: {}", child.start().rank, sentence)});
  };
  auto backend = make_rank_backend(start.options, start.rank, std::move(memory), start.place);
  if (!backend) child.fail(fmt::format("rank {}: {}", start.rank, backend.error().message));

  WorkerSetup setup;
  setup.head = child.take_head_connection().release();
  if (Descriptor end = child.take_descriptors()) {
    setup.descriptors = std::make_shared<DescriptorReceiver>(std::move(end));
  }
  setup.start = start;
  setup.backend = *std::move(backend);
  if (const auto model_config = model::read_model_config(start.options.model)) {  // if not, loading says why
    setup.vocab_size = model_config->vocab_size;
    setup.grammars = grammars_of(start.options.model, setup.vocab_size);
  }
  setup.loading = [&child](int done, int total) { child.tell(control::Loading{done, total}); };
  setup.fatal = [&child](const std::string& why) { child.fail(fmt::format("rank {}: {}", child.start().rank, why)); };
  setup.left = [&child](uint64_t epoch) { child.tell(control::HasLeft{epoch}); };
  setup.hung = [&child](const std::string& why) {
    child.fail(fmt::format("rank {}: {}", child.start().rank, why), true);
  };

  constexpr size_t kActorThreads = 1;  // one actor, which never blocks
  SystemConfig config(start.options, Networking::connected, kActorThreads);
  caf::actor_system system{config};
  spawned.set_value(system.spawn(worker, std::move(setup)));
  for (;;) pause();
}

}  // namespace lorikeet::actors
