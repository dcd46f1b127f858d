// A cassette of any bytes: refused with one error, or read; then written and read it is the same,
// and each of its answers can be spoken in every dialect and is understood again.
#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/llm/recorded_answer.hpp"

namespace {

using namespace necrocode;
using namespace necrocode::llm;

Json written(const Cassette& cassette) {
  Json entries = Json::array();
  Json drills = Json::array();
  for (const CassetteEntry& entry : cassette.entries) entries.push_back(to_json(entry));
  for (const DrillRule& rule : cassette.drills) drills.push_back(to_json(rule));
  return Json::object({{"version", 1}, {"entries", entries}, {"drills", drills}});
}

void check_spoken(const CompletionAnswer& answer) {
  Question question;
  question.model = "m";
  for (const ModelApi api : {ModelApi::kChat, ModelApi::kResponses, ModelApi::kMessages}) {
    net::HttpResponse whole;
    whole.status = 200;
    whole.body = whole_answer(api, answer, question).dump();
    net::HttpResponse streamed;
    streamed.status = 200;
    streamed.headers.set("Content-Type", "text/event-stream");
    for (const std::string& event : streamed_answer(api, answer, question)) streamed.body += event;
    for (const net::HttpResponse& spoken : {whole, streamed}) {
      const auto read = read_answer(api, spoken);
      const auto* understood = std::get_if<CompletionAnswer>(&read);
      if (understood == nullptr) continue;  // an answer without a finish is none
      FUZZ_CHECK(understood->content == answer.content);
      FUZZ_CHECK(understood->reasoning == answer.reasoning);
      FUZZ_CHECK(understood->tool_calls.size() == answer.tool_calls.size());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Cassette cassette;
  try {
    cassette = Cassette::parse(test::as_text(data, size));
  } catch (const ConfigError&) {
    return 0;
  }
  const Json once = written(cassette);
  FUZZ_CHECK(written(Cassette::parse(once.dump())) == once);
  for (const DrillRule& rule : cassette.drills) {
    FUZZ_CHECK(rule.every > 0);
    rule.is_due(1);
  }
  for (const CassetteEntry& entry : cassette.entries) {
    if (const auto* answer = std::get_if<CompletionAnswer>(&entry.answer)) check_spoken(*answer);
  }
  return 0;
}
