// What a model service answers, of any bytes: told in a cassette's words or as it came, never an
// exception, and a cassette can hold it or says that it cannot.
#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/llm/recorded_answer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace necrocode;
  using namespace necrocode::llm;
  for (const char* type : {"application/json", "text/event-stream"}) {
    net::HttpResponse answer;
    answer.status = 200;
    answer.headers.set("Content-Type", type);
    answer.body = test::as_text(data, size);
    for (const ModelApi api : {ModelApi::kChat, ModelApi::kResponses, ModelApi::kMessages}) {
      CassetteEntry entry;
      entry.answer = read_answer(api, answer);
      const Json entries = Json(Json::Array{to_json(entry)});
      try {
        Cassette::parse(Json::object({{"version", 1}, {"entries", entries}}).dump());
      } catch (const ConfigError&) {
        continue;  // a NUL in a text, a tool call without a name
      }
    }
  }
  return 0;
}
