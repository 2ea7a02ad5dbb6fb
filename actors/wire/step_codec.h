// Plans and results as bytes. Every step sends a plan to each rank and a result back, so their rows are packed: a number
// takes as many bytes as it needs, ids and positions are differences to those before them, and an absent part takes one
// bit. A step of 64 decode rows takes 0.2 KB there and 0.3 KB back, if the sequences arrived close together.
//
// Layout. u: LEB128; s: LEB128 of the zigzag form, so that small negative numbers are short, too; d: s of the difference
// to the last d of the same kind (sequence, block, position) in the message, the first one's to 0.
//   plan     version, u epoch, u step,
//            u count of finished; for each: d sequence
//            u count of appends; for each: d sequence, u count of blocks, for each: d block
//            u count of rows, then runs until there are as many: u rows of the run, s 2 * count + sample of each of them;
//            for each: d sequence, d start
//            in what is left, if anything: comm/codec's encoding of the starts
//   result   version, u epoch, u step, s rank, flags,
//            kMeasured: u device_ns, u idle_ns
//            kError: u bytes of it, the bytes
//            u count of rows; for each: d sequence, s token, and with kLogprobs u count, for each: s token, 4 bytes of a
//            float, the lowest first
//            kPrompts: in what is left comm/codec's encoding of the prompts
// What is read may be forged: counts are compared with the bytes that are left and with kMaxStepItems before anything is
// allocated. Whether the numbers make sense is checked by those who use them (StepExecutor, InFlightPlans).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/step_plan.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

// Not comm/codec's 1: a head and a rank of different versions refuse each other's steps with a sentence.
inline constexpr uint8_t kStepCodecVersion = 2;

// Rows, ended sequences, or sequences that get blocks; a step has up to 65,536 rows.
inline constexpr size_t kMaxStepItems = size_t{1} << 20;

std::vector<uint8_t> encode_plan(const engine::StepPlan& plan);
std::vector<uint8_t> encode_result(const engine::StepResult& result);

// Errors: what does not fit, in a sentence.
Result<engine::StepPlan> decode_plan(std::span<const uint8_t> bytes);
Result<engine::StepResult> decode_result(std::span<const uint8_t> bytes);

}  // namespace lorikeet::actors
