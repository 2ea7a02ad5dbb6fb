#include "actors/rank/resident_kv.h"

#include <fmt/format.h>

#include <sstream>
#include <utility>

#include "kernels/base/resident_memory.h"

namespace lorikeet::actors {
namespace {

constexpr const char* kDescription = "kv";
constexpr const char* kMemory = "kv.memory";
constexpr size_t kMaxDescriptionBytes = 4'096;

// Numbers first, since the rest is text.
std::string text_of(const ResidentKv& is) {
  return fmt::format("{} {} {} {}", is.bytes, is.num_blocks, is.epoch, is.what);
}

Result<ResidentKv> read(Descriptor description) {
  const auto memory = kernels::ResidentMemory::attach(std::move(description));
  if (!memory) return tl::unexpected(memory.error());
  const auto bytes = memory->bytes();
  if (bytes.size() > kMaxDescriptionBytes) return fail("it is described by {} bytes", bytes.size());
  std::istringstream text(std::string(bytes.begin(), bytes.end()));
  ResidentKv is;
  text >> is.bytes >> is.num_blocks >> is.epoch;
  if (!text || text.get() != ' ' || is.num_blocks < 1) return fail("nothing says what it is");
  is.what.assign(std::istreambuf_iterator<char>(text), {});
  return is;
}

Result<LeftKv> take(InheritedRegion description, std::optional<InheritedRegion> region, const std::string& what,
                    RegionKind kind) {
  auto is = read(std::move(description.memory));
  if (!is) return tl::unexpected(is.error());
  if (is->what != what) return fail("it is {}, not {}", is->what, what);
  if (!region || region->what.kind != kind || region->what.bytes != is->bytes) {
    return fail("the memory that is described was not left");
  }
  is->kind = kind;
  return LeftKv{*std::move(is), std::move(region->memory)};
}

Result<kernels::ResidentMemory> describe(const ResidentKv& is) {
  auto description = kernels::ResidentMemory::make("lorikeet-kv");
  if (!description) return description;
  const std::string text = text_of(is);
  auto ok = description->write(0, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  if (ok) ok = description->seal();
  if (!ok) return tl::unexpected(ok.error());
  return description;
}

}  // namespace

std::optional<LeftKv> take_kv(RankMemory& memory, const std::string& what, RegionKind kind) {
  auto description = memory.take(kDescription);
  auto region = memory.take(kMemory);
  if (!description) {
    if (region) memory.drop_one(kMemory);
    return std::nullopt;
  }
  auto left = take(*std::move(description), std::move(region), what, kind);
  if (left) return *std::move(left);
  drop_kv(memory);
  memory.say("its KV cache is made anew: " + left.error().message);
  return std::nullopt;
}

void drop_kv(RankMemory& memory) {
  memory.drop_one(kDescription);
  memory.drop_one(kMemory);
}

// The description is dropped first and held last: it must never be held together with other memory.
void hold_kv(RankMemory& memory, const ResidentKv& is, const Descriptor& descriptor) {
  memory.drop_one(kDescription);
  const auto description = describe(is);
  if (!description) return memory.say("its KV cache ends with its process: " + description.error().message);
  memory.hold({kMemory, is.kind, is.bytes}, descriptor);
  memory.hold({kDescription, RegionKind::sealed, description->bytes().size()}, description->descriptor());
}

}  // namespace lorikeet::actors
