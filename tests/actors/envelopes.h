// What envelopes carry, for tests that play the other end.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "actors/wire/envelope.h"
#include "actors/wire/step_codec.h"
#include "actors/wire/wire.h"
#include "comm/codec/codec.h"
#include "engine/step_plan.h"

namespace lorikeet::actors {

template <class Message>
constexpr EnvelopeStream stream_of() {
  if (std::is_same_v<Message, AdapterOrder> || std::is_same_v<Message, AdapterReport>) return EnvelopeStream::adapters;
  if (std::is_same_v<Message, GroupOrder> || std::is_same_v<Message, GroupReport>) return EnvelopeStream::group;
  return EnvelopeStream::steps;
}

template <class Message>
std::vector<uint8_t> bytes_of(const Message& message) {
  if constexpr (std::is_same_v<Message, engine::StepPlan>) {
    return encode_plan(message);
  } else if constexpr (std::is_same_v<Message, engine::StepResult>) {
    return encode_result(message);
  } else {
    return comm::encode(message);
  }
}

template <class Message>
Result<Message> decoded_as(std::span<const uint8_t> bytes) {
  if constexpr (std::is_same_v<Message, engine::StepPlan>) {
    return decode_plan(bytes);
  } else if constexpr (std::is_same_v<Message, engine::StepResult>) {
    return decode_result(bytes);
  } else {
    return comm::decode<Message>(bytes);
  }
}

// A message that fits into one envelope.
template <class Message>
Envelope envelope_of(const Message& message, int32_t rank, uint64_t epoch, uint64_t step = 0) {
  return {stream_of<Message>(), rank, epoch, step, true, bytes_of(message)};
}

// The message that the envelope holds; the test fails where it is another.
template <class Message>
Message message_in(const Envelope& envelope) {
  EXPECT_EQ(envelope.stream, stream_of<Message>());
  EXPECT_TRUE(envelope.last);
  auto message = decoded_as<Message>(envelope.bytes);
  EXPECT_TRUE(message) << message.error().message;
  return message ? *std::move(message) : Message{};
}

// Whether the envelope holds this order to, or report of, a rank about its group.
template <class Order>
bool is_order(const Envelope& envelope) {
  const auto order = comm::decode<GroupOrder>(envelope.bytes);
  return envelope.stream == EnvelopeStream::group && order && std::holds_alternative<Order>(*order);
}
template <class Report>
bool is_report(const Envelope& envelope) {
  const auto report = comm::decode<GroupReport>(envelope.bytes);
  return envelope.stream == EnvelopeStream::group && report && std::holds_alternative<Report>(*report);
}

// The alternative of an order to, or a report of, a rank's adapter thread; the test fails where it is another.
template <class What>
What order_in(const Envelope& envelope) {
  const auto order = message_in<AdapterOrder>(envelope);
  EXPECT_TRUE(std::holds_alternative<What>(order.what));
  return std::holds_alternative<What>(order.what) ? std::get<What>(order.what) : What{};
}
template <class What>
What report_in(const Envelope& envelope) {
  const auto report = message_in<AdapterReport>(envelope);
  EXPECT_TRUE(std::holds_alternative<What>(report.what));
  return std::holds_alternative<What>(report.what) ? std::get<What>(report.what) : What{};
}

}  // namespace lorikeet::actors
