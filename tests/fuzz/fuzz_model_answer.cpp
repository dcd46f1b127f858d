// A model's answer in each dialect, whole and in pieces. The first byte says which dialect and how;
// the second how the bytes are cut. However they are cut, the same comes out.
#include <algorithm>
#include <chrono>
#include <optional>
#include <string>

#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/llm/answer_stream.hpp"

namespace {

using namespace necrocode;

const llm::Dialect& dialect_of(unsigned choice) {
  switch (choice % 3) {
    case 0:
      return llm::openai_chat();
    case 1:
      return llm::openai_responses();
    default:
      return llm::anthropic();
  }
}

llm::ChatRequest question() {
  llm::ChatRequest request;
  request.messages = {{"user", "?"}};
  request.tools = {{"f", "", Json::object()}};
  return request;
}

// What came of it, as text; the error's summary when it failed.
std::string told(const llm::Dialect& dialect, std::string_view bytes, std::size_t piece) {
  const llm::ChatRequest asked = question();
  const llm::OnDelta nobody;
  llm::AnswerStream stream(dialect, asked, nobody, std::chrono::seconds(60));
  net::HttpRequest request;
  stream.receive(request);
  net::HttpResponse head;
  head.status = 200;
  head.headers.set("Content-Type", "text/event-stream");
  try {
    request.on_head(head);
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      request.on_body(bytes.substr(at, piece));
    }
    if (stream.broke_off()) return "broke off: " + stream.so_far().content;
    const llm::ChatResponse response = llm::to_response(stream.finish(), asked);
    std::string text = response.content + "|" + response.reasoning + "|" + response.finish_reason;
    for (const llm::ToolCall& call : response.tool_calls) text += "|" + call.name + call.arguments;
    return text + response.usage.to_json().dump();
  } catch (const RunnerError& error) {
    return error.summary();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const llm::Dialect& dialect = dialect_of(data[0]);
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (data[0] % 2 == 0) {
    const std::string whole = told(dialect, bytes, std::max<std::size_t>(bytes.size(), 1));
    FUZZ_CHECK(whole == told(dialect, bytes, data[1] % 16 + 1));
    return 0;
  }
  try {
    llm::to_response(llm::read_whole(dialect, bytes, 200), question());
  } catch (const RunnerError&) {
    return 0;  // an answer that is none
  }
  return 0;
}
