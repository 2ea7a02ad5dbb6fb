// An adapter cache that does nothing of itself: what it answers is the test's.
#pragma once

#include <functional>
#include <utility>

#include "actors/head/messages.h"

namespace lorikeet::actors {

struct FakeCacheAnswers {
  std::function<caf::result<AdapterChanged>(AdapterCacheActor::pointer, const ChangeAdapter&)> change =
      [](AdapterCacheActor::pointer, const ChangeAdapter&) { return AdapterChanged{}; };
  AdaptersStatus status;
};

inline AdapterCacheActor::behavior_type fake_adapter_cache(AdapterCacheActor::pointer self, FakeCacheAnswers answers) {
  return {[](Envelope&) {},
          [](const ResolveAdapter&) { return AdapterResolved{}; },
          [](const UnclaimAdapter&) {},
          [](const AcquireSlot&) { return SlotAcquired{}; },
          [](const ReleaseSlot&) {},
          [](const GroupFormed&) {},
          [](const GroupLost&) {},
          [](AdapterSource::Checked&) {},
          [](AdapterSource::Staged&) {},
          [](const AdapterSource::Located&) {},
          [self, change = std::move(answers.change)](const ChangeAdapter& ask) { return change(self, ask); },
          [](FactorsMade&) {},
          [](Tick) {},
          [status = std::move(answers.status)](const StatusQuery&) { return status; },
          [](Pulse) { return true; }};
}

}  // namespace lorikeet::actors
