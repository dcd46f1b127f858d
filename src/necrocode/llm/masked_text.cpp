#include "necrocode/llm/masked_text.hpp"

#include <algorithm>
#include <map>

#include "necrocode/base/errors.hpp"
#include "necrocode/net/event_stream.hpp"

namespace necrocode::llm {
namespace {

void join_texts(const Json& value, const std::string& name,
                std::map<std::string, std::string>& texts) {
  if (const auto text = value.as_string()) texts[name] += *text;
  for (const Json& item : value.items()) join_texts(item, name, texts);
  for (const auto& [inner, member] : value.members()) join_texts(member, inner, texts);
}

}  // namespace

Json masked(const Json& value, const Masker& masker) {
  if (const auto text = value.as_string()) return Json(masker.mask(*text));
  Json copy = value;
  if (value.is_array()) {
    for (Json& item : copy.items()) item = masked(item, masker);
  }
  if (value.is_object()) {
    for (auto& [name, member] : copy.members()) {
      name = masker.mask(name);
      member = masked(member, masker);
    }
  }
  return copy;
}

std::string masked_body(std::string_view body, const Masker& masker) {
  const auto json = Json::try_parse(body);
  return json ? masked(*json, masker).dump() : masker.mask(body);
}

bool holds_secret_in_pieces(std::string_view stream, const Masker& masker) {
  std::map<std::string, std::string> texts;  // of all events, by the member that holds them
  net::EventStreamReader reader;
  try {
    reader.take(stream, [&texts](const net::StreamEvent& event) {
      if (const auto data = Json::try_parse(event.data)) join_texts(*data, "", texts);
    });
  } catch (const InvalidResponse&) {
    return true;  // too large to be looked at
  }
  return std::any_of(texts.begin(), texts.end(),
                     [&masker](const auto& text) { return masker.contains_secret(text.second); });
}

}  // namespace necrocode::llm
