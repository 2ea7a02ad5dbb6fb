// What decode_step_gpu_bench --full measures, point by point, and the file in which the figures gather over its calls.
// Host code alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::bench {

enum class StepKind { plain, one_adapter, own_adapters, draw, mixed };

struct StepPoint {
  int32_t context = 0;  // tokens of every row
  bool fp8 = false;     // keys and values
  StepKind kind = StepKind::plain;
  int32_t variant = 0;  // of draws: which of them; of mixed steps: --max-num-batched-tokens
  int32_t rows = 0;

  // A word that no other point has: `512/fp16/plain/8`.
  std::string key() const;
  // Points that one loaded model measures are alike in this.
  bool of_group(const StepPoint& other) const { return context == other.context && fp8 == other.fp8; }
};

// All points, those of a group together. Adapters: one for all rows, and one for each, 64 at most. Draws at the shortest
// context alone: they do not read keys. num_draws: ways to draw; the first is what all other points do.
std::vector<StepPoint> step_points(int32_t num_draws);

// What was measured of a point: milliseconds. rows do not fit: nothing else is said.
struct StepRecord {
  bool fits = true;
  double ms = 0, gpu_ms = 0, floor_ms = 0, p99_ms = 0;
};

// The file: a line for each point, `EXECUTABLE DEVICE POINT MS GPU_MS FLOOR_MS P99_MS` or `EXECUTABLE DEVICE POINT -`. The
// last line of a point holds; one that was cut off or is of another executable or device is as none, and stays. It may be
// carried from machine to machine.
class StepTable {
 public:
  // Reads the file, if it is there. executable: digest_of its bytes; device: its name.
  StepTable(std::filesystem::path path, const std::string& executable, std::string device);

  const StepRecord* find(const StepPoint& point) const;
  // Writes a line. False where the file cannot be written.
  bool add(const StepPoint& point, const StepRecord& record);

  // The points of the next group that has points without a record.
  std::vector<StepPoint> next_group(std::span<const StepPoint> points) const;
  size_t done(std::span<const StepPoint> points) const;

 private:
  const std::filesystem::path path_;
  const std::string prefix_;
  std::map<std::string, StepRecord> records_;
  bool ends_line_ = true;  // the file's last line is whole
};

// 16 hexadecimal digits of a file's bytes; empty where it cannot be read.
std::string digest_of(const std::filesystem::path& file);

// For every context and kind of keys and values a line of milliseconds by batch, and where a token costs more than in a
// smaller batch: that is never the case by more than 1.03 where the aim is met.
std::string table_of(const StepTable& table, std::span<const StepPoint> points);

}  // namespace lorikeet::bench
