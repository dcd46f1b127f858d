// What the metering proxy reads: the first byte says which dialect, and whether it is a request or
// an answer; the second how the bytes are cut. However they are cut, the same comes out.
#include <algorithm>
#include <string>

#include "fuzz/fuzz.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/llm/metering.hpp"

namespace {

using namespace necrocode;

void check_request(llm::ModelApi api, std::string_view body) {
  if (!llm::read_metered_request(api, body).defect.empty()) return;
  if (!llm::read_metered_request(llm::ModelApi::kChat, body).defect.empty()) return;
  const std::string asked = llm::with_usage_asked(body);
  const llm::MeteredRequest request = llm::read_metered_request(llm::ModelApi::kChat, asked);
  FUZZ_CHECK(request.defect.empty() && request.asks_usage);
}

std::string told(llm::ModelApi api, std::string_view bytes, std::size_t piece) {
  llm::AnswerMeter meter(api);
  llm::UsageChunkFilter filter;
  meter.begin({200, {{"Content-Type", "text/event-stream"}}, {}});
  std::string passed;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    meter.take(bytes.substr(at, piece));
    passed += filter.take(bytes.substr(at, piece));
  }
  passed += filter.finish();
  FUZZ_CHECK(passed.size() <= bytes.size());
  const llm::Verdict verdict = meter.verdict(true);
  return passed + std::string(to_string(verdict.how)) + verdict.detail +
         meter.usage(7).to_json().dump() + meter.model();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto api = static_cast<llm::ModelApi>(data[0] % 3);
  const std::string_view bytes = test::as_text(data + 2, size - 2);
  if (data[0] / 3 % 2 == 0) {
    check_request(api, bytes);
  } else {
    const std::string whole = told(api, bytes, std::max<std::size_t>(bytes.size(), 1));
    FUZZ_CHECK(whole == told(api, bytes, data[1] % 16 + 1));
  }
  return 0;
}
