#include "model/chat/answer/answer_parser.h"

#include <utility>

namespace lorikeet::model {
namespace {

constexpr std::string_view kCall = "<tool_call>", kCallEnd = "</tool_call>";

}  // namespace

AnswerParser::AnswerParser(const Options& options)
    : reasoning_(options.reasoning), form_(options.tool_calls), parallel_(options.parallel_tool_calls) {
  if (form_ == ToolCallForm::qwen3_coder) {
    parameters_ = std::make_shared<const StringParameters>(string_parameters(options.tools));
  }
}

AnswerPiece AnswerParser::push(std::string_view text) {
  AnswerPiece piece;
  if (form_ == ToolCallForm::none) {
    reasoning_.push(text, &piece.reasoning, &piece.text);
  } else {
    reasoning_.push(text, &piece.reasoning, &rest_);
    take(&piece);
  }
  return piece;
}

AnswerPiece AnswerParser::flush() {
  AnswerPiece piece;
  if (form_ == ToolCallForm::none) {
    reasoning_.flush(&piece.reasoning, &piece.text);
    return piece;
  }
  reasoning_.flush(&piece.reasoning, &rest_);
  take(&piece);
  if (reader_) {
    read(std::exchange(rest_, {}), false, true, &piece);
  } else if (calls_ == 0 || rest_.find_first_not_of(kWhiteSpace) != std::string::npos) {
    piece.text += std::exchange(rest_, {});
  }
  return piece;
}

void AnswerParser::take(AnswerPiece* piece) {
  do {
    if (!reader_) take_text(piece);
  } while (reader_ && take_call(piece));
}

// Up to a call. White space in front of one is nothing that is said.
void AnswerParser::take_text(AnswerPiece* piece) {
  const size_t call = rest_.find(kCall);
  size_t end = call != std::string::npos ? call : rest_.size() - begun_mark(rest_, kCall);
  const size_t last = end == 0 ? std::string::npos : rest_.find_last_not_of(kWhiteSpace, end - 1);
  end = last == std::string::npos ? 0 : last + 1;
  piece->text.append(rest_, 0, end);
  if (call == std::string::npos) {
    rest_.erase(0, end);
    return;
  }
  rest_.erase(0, call + kCall.size());
  reader_ = form_ == ToolCallForm::hermes ? make_hermes_reader() : make_qwen3_coder_reader(parameters_);
  call_text_.clear();
}

// False: the call goes on.
bool AnswerParser::take_call(AnswerPiece* piece) {
  const size_t end = rest_.find(kCallEnd);
  const size_t known = end != std::string::npos ? end : rest_.size() - begun_mark(rest_, kCallEnd);
  const std::string text = rest_.substr(0, known);
  rest_.erase(0, end != std::string::npos ? end + kCallEnd.size() : known);
  const bool closed = end != std::string::npos;
  read(text, closed, closed, piece);
  return closed;
}

void AnswerParser::read(std::string_view text, bool closed, bool ended, AnswerPiece* piece) {
  ToolCallPiece call;
  reader_->push(text, &call);
  if (!reader_->has_name()) call_text_ += text;
  if (ended) reader_->end(&call);
  const bool dropped = !parallel_ && calls_ > 0;
  call.index = calls_;
  if (reader_->has_name() && !dropped && (call.name || !call.arguments.empty())) piece->tool_calls.push_back(call);
  if (!ended) return;
  if (!reader_->has_name()) {  // it is none: what the model wrote is what it said
    piece->text.append(kCall).append(call_text_);
    if (closed) piece->text.append(kCallEnd);
  } else if (!dropped) {
    ++calls_;
  }
  reader_.reset();
}

}  // namespace lorikeet::model
