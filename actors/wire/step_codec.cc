#include "actors/wire/step_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

using Bytes = std::vector<uint8_t>;

// Of a result.
enum Flag : uint8_t {
  kMeasured = 1,
  kDecode = 2,  // StepTimes::decode
  kError = 4,
  kPeerFailed = 8,
  kLogprobs = 16,
  kPrompts = 32,
  kAllFlags = 63,
};

// The last values, to which differences are encoded.
struct Last {
  uint64_t sequence = 0;
  int64_t block = 0, start = 0;
};

class Packer {
 public:
  explicit Packer(size_t expected) : bytes_(expected + kMaxNumber) {}

  void put_unsigned(uint64_t value) {
    uint8_t* at = room_for(kMaxNumber);
    for (; value >= 0x80; value >>= 7) *at++ = static_cast<uint8_t>(value | 0x80);
    *at++ = static_cast<uint8_t>(value);
    size_ = static_cast<size_t>(at - bytes_.data());
  }
  void put_signed(int64_t value) {
    put_unsigned((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
  }
  void put_byte(uint8_t value) {
    *room_for(1) = value;
    ++size_;
  }
  void put_float(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const std::array<uint8_t, sizeof(bits)> raw = {static_cast<uint8_t>(bits), static_cast<uint8_t>(bits >> 8),
                                                   static_cast<uint8_t>(bits >> 16), static_cast<uint8_t>(bits >> 24)};
    put_bytes(raw.data(), raw.size());
  }
  void put_bytes(const void* data, size_t size) {
    if (size > 0) std::memcpy(room_for(size), data, size);
    size_ += size;
  }

  // Modulo 2^64, so that every id comes back.
  void put(engine::SequenceId id) {
    put_signed(static_cast<int64_t>(id.value() - last_.sequence));
    last_.sequence = id.value();
  }
  void put(engine::BlockId block) {
    put_signed(block.value() - last_.block);
    last_.block = block.value();
  }
  void put_start(int32_t start) {
    put_signed(start - last_.start);
    last_.start = start;
  }

  Bytes take() {
    bytes_.resize(size_);
    return std::move(bytes_);
  }

 private:
  static constexpr size_t kMaxNumber = 10;

  uint8_t* room_for(size_t size) {
    if (bytes_.size() - size_ < size) bytes_.resize(2 * bytes_.size() + size);
    return bytes_.data() + size_;
  }

  Bytes bytes_;
  size_t size_ = 0;  // of them that are written
  Last last_;
};

// A number that does not fit, or is not there, makes it fail: then all numbers are 0 and nothing is left.
class Unpacker {
 public:
  explicit Unpacker(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  bool failed() const { return failed_; }
  std::span<const uint8_t> rest() const { return bytes_; }

  uint64_t get_unsigned() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !bytes_.empty(); shift += 7) {
      const uint64_t byte = bytes_.front();
      bytes_ = bytes_.subspan(1);
      if (shift == 63 && byte > 1) break;
      value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    return refuse();
  }
  int64_t get_signed() {
    const uint64_t zigzag = get_unsigned();
    return static_cast<int64_t>(zigzag >> 1) ^ -static_cast<int64_t>(zigzag & 1);
  }
  int32_t get_int() { return as_int(get_signed()); }
  uint8_t get_byte() {
    const auto taken = get_bytes(1);
    return taken.empty() ? uint8_t{0} : taken[0];
  }
  float get_float() {
    uint32_t bits = 0;
    for (int shift = 0; shift < 32; shift += 8) bits |= uint32_t{get_byte()} << shift;
    return std::bit_cast<float>(bits);
  }
  std::span<const uint8_t> get_bytes(size_t size) {
    if (size > bytes_.size()) size = refuse();
    const auto taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  // Reads a count of things that take at least so many bytes each.
  size_t get_count(size_t bytes_each) {
    const uint64_t count = get_unsigned();
    return static_cast<size_t>(count <= bytes_.size() / bytes_each ? count : refuse());
  }
  // Reads a count of things that take much more memory than encoded bytes.
  size_t get_items(size_t bytes_each) {
    const size_t count = get_count(bytes_each);
    return count <= kMaxStepItems ? count : static_cast<size_t>(refuse());
  }

  engine::SequenceId get_sequence() {
    last_.sequence += static_cast<uint64_t>(get_signed());
    return engine::SequenceId(last_.sequence);
  }
  engine::BlockId get_block() { return engine::BlockId(get_difference(last_.block)); }
  int32_t get_start() { return get_difference(last_.start); }

 private:
  // No int32_t is so far from another.
  static constexpr int64_t kMostApart = std::numeric_limits<uint32_t>::max();

  int32_t get_difference(int64_t& last) {
    const int64_t difference = get_signed();
    last = difference >= -kMostApart && difference <= kMostApart ? as_int(last + difference)
                                                                 : static_cast<int64_t>(refuse());
    return static_cast<int32_t>(last);
  }
  int32_t as_int(int64_t value) {
    const bool fits = value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max();
    return static_cast<int32_t>(fits ? static_cast<uint64_t>(value) : refuse());
  }
  uint64_t refuse() {
    failed_ = true;
    bytes_ = {};
    return 0;
  }

  std::span<const uint8_t> bytes_;
  bool failed_ = false;
  Last last_;
};

bool is_like(const engine::StepRow& row, const engine::StepRow& other) {
  return row.count == other.count && row.sample == other.sample;
}

void put_rows(Packer& packer, const std::vector<engine::StepRow>& rows) {
  packer.put_unsigned(rows.size());
  for (auto row = rows.begin(); row != rows.end();) {
    const auto end = std::find_if(row, rows.end(), [&](const engine::StepRow& other) { return !is_like(*row, other); });
    packer.put_unsigned(static_cast<uint64_t>(end - row));
    packer.put_signed(2 * int64_t{row->count} + (row->sample ? 1 : 0));
    for (; row != end; ++row) {
      packer.put(row->id);
      packer.put_start(row->start);
    }
  }
}

Result<std::vector<engine::StepRow>> get_rows(Unpacker& unpacker) {
  std::vector<engine::StepRow> rows(unpacker.get_items(2));
  for (size_t done = 0; done < rows.size();) {
    const uint64_t run = unpacker.get_unsigned();
    if (run == 0 || run > rows.size() - done)
      return fail("a run of {} rows where {} are left", run, rows.size() - done);
    const int64_t kind = unpacker.get_signed();
    const auto count = static_cast<int32_t>(kind >> 1);
    if (count != kind >> 1) return fail("a row of {} tokens", kind >> 1);
    for (const size_t end = done + static_cast<size_t>(run); done < end; ++done) {
      engine::StepRow& row = rows[done];
      row.id = unpacker.get_sequence();
      row.start = unpacker.get_start();
      row.count = count;
      row.sample = (kind & 1) != 0;
    }
    if (unpacker.failed()) break;
  }
  return rows;
}

// What both begin with.
Result<Unpacker> opened(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return fail("no bytes");
  if (bytes[0] != kStepCodecVersion) {
    return fail("version {} of steps where {} was expected", bytes[0], kStepCodecVersion);
  }
  return Unpacker(bytes.subspan(1));
}

tl::unexpected<Error> cut_short(size_t bytes) {
  return fail("its {} bytes end too early, or hold a number that is too large", bytes);
}

Result<engine::StepPlan> read_plan(std::span<const uint8_t> bytes) {
  auto unpacker = opened(bytes);
  if (!unpacker) return tl::unexpected(unpacker.error());
  engine::StepPlan plan;
  plan.epoch = engine::Epoch(unpacker->get_unsigned());
  plan.step = engine::StepId(unpacker->get_unsigned());
  plan.finished.resize(unpacker->get_items(1));
  for (engine::SequenceId& id : plan.finished) id = unpacker->get_sequence();
  plan.blocks.resize(unpacker->get_items(2));
  for (engine::BlockAppend& append : plan.blocks) {
    append.id = unpacker->get_sequence();
    append.blocks.resize(unpacker->get_count(1));
    for (engine::BlockId& block : append.blocks) block = unpacker->get_block();
  }
  auto rows = get_rows(*unpacker);
  if (unpacker->failed()) return cut_short(bytes.size());
  if (!rows) return tl::unexpected(rows.error());
  plan.rows = *std::move(rows);
  if (unpacker->rest().empty()) return plan;
  auto starts = comm::decode<std::vector<engine::SequenceStart>>(unpacker->rest());
  if (!starts) return tl::unexpected(starts.error());
  plan.starts = *std::move(starts);
  return plan;
}

Result<engine::StepResult> read_result(std::span<const uint8_t> bytes) {
  auto unpacker = opened(bytes);
  if (!unpacker) return tl::unexpected(unpacker.error());
  engine::StepResult result;
  result.epoch = engine::Epoch(unpacker->get_unsigned());
  result.step = engine::StepId(unpacker->get_unsigned());
  result.rank = unpacker->get_int();
  const uint8_t flags = unpacker->get_byte();
  if (flags > kAllFlags) return fail("flags {:#x}, of which some mean nothing", flags);
  const auto has = [flags](Flag flag) { return (flags & flag) != 0; };
  result.peer_failed = has(kPeerFailed);
  result.times.decode = has(kDecode);
  if (has(kMeasured)) {
    result.times.device_ns = unpacker->get_unsigned();
    result.times.idle_ns = unpacker->get_unsigned();
  }
  if (has(kError)) {
    const auto error = unpacker->get_bytes(static_cast<size_t>(unpacker->get_unsigned()));
    result.error.assign(error.begin(), error.end());
  }
  result.rows.resize(unpacker->get_items(2));
  for (engine::RowResult& row : result.rows) {
    row.id = unpacker->get_sequence();
    row.token_id = unpacker->get_int();
    if (!has(kLogprobs)) continue;
    row.logprobs.resize(unpacker->get_count(5));
    for (engine::TokenLogprob& one : row.logprobs) {
      one.token_id = unpacker->get_int();
      one.logprob = unpacker->get_float();
    }
  }
  if (unpacker->failed()) return cut_short(bytes.size());
  if (has(kPrompts)) {
    auto prompts = comm::decode<std::vector<engine::PromptResult>>(unpacker->rest());
    if (!prompts) return tl::unexpected(prompts.error());
    result.prompts = *std::move(prompts);
  } else if (!unpacker->rest().empty()) {
    return fail("{} bytes too many", unpacker->rest().size());
  }
  return result;
}

}  // namespace

Bytes encode_plan(const engine::StepPlan& plan) {
  Packer packer(32 + 8 * (plan.finished.size() + plan.blocks.size() + plan.rows.size()));
  packer.put_byte(kStepCodecVersion);
  packer.put_unsigned(plan.epoch.value());
  packer.put_unsigned(plan.step.value());
  packer.put_unsigned(plan.finished.size());
  for (const engine::SequenceId id : plan.finished) packer.put(id);
  packer.put_unsigned(plan.blocks.size());
  for (const engine::BlockAppend& append : plan.blocks) {
    packer.put(append.id);
    packer.put_unsigned(append.blocks.size());
    for (const engine::BlockId block : append.blocks) packer.put(block);
  }
  put_rows(packer, plan.rows);
  if (!plan.starts.empty()) {
    const Bytes starts = comm::encode(plan.starts);
    packer.put_bytes(starts.data(), starts.size());
  }
  return packer.take();
}

Bytes encode_result(const engine::StepResult& result) {
  const bool measured = result.times.device_ns != 0 || result.times.idle_ns != 0;
  const bool logprobs = std::any_of(result.rows.begin(), result.rows.end(),
                                    [](const engine::RowResult& row) { return !row.logprobs.empty(); });
  const auto flags = static_cast<uint8_t>((measured ? kMeasured : 0) | (result.times.decode ? kDecode : 0) |
                                          (result.error.empty() ? 0 : kError) | (result.peer_failed ? kPeerFailed : 0) |
                                          (logprobs ? kLogprobs : 0) | (result.prompts.empty() ? 0 : kPrompts));
  Packer packer(48 + 8 * result.rows.size() + result.error.size());
  packer.put_byte(kStepCodecVersion);
  packer.put_unsigned(result.epoch.value());
  packer.put_unsigned(result.step.value());
  packer.put_signed(result.rank);
  packer.put_byte(flags);
  if (measured) {
    packer.put_unsigned(result.times.device_ns);
    packer.put_unsigned(result.times.idle_ns);
  }
  if (!result.error.empty()) {
    packer.put_unsigned(result.error.size());
    packer.put_bytes(result.error.data(), result.error.size());
  }
  packer.put_unsigned(result.rows.size());
  for (const engine::RowResult& row : result.rows) {
    packer.put(row.id);
    packer.put_signed(row.token_id);
    if (!logprobs) continue;
    packer.put_unsigned(row.logprobs.size());
    for (const engine::TokenLogprob& one : row.logprobs) {
      packer.put_signed(one.token_id);
      packer.put_float(one.logprob);
    }
  }
  if (!result.prompts.empty()) {
    const Bytes prompts = comm::encode(result.prompts);
    packer.put_bytes(prompts.data(), prompts.size());
  }
  return packer.take();
}

Result<engine::StepPlan> decode_plan(std::span<const uint8_t> bytes) {
  auto plan = read_plan(bytes);
  if (!plan) return fail("a plan cannot be read: {}", plan.error().message);
  return plan;
}

Result<engine::StepResult> decode_result(std::span<const uint8_t> bytes) {
  auto result = read_result(bytes);
  if (!result) return fail("a step's result cannot be read: {}", result.error().message);
  return result;
}

}  // namespace lorikeet::actors
