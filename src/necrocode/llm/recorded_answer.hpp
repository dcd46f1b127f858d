// What a model service answered, put into the words of a cassette: the way back from
// replay_dialects.hpp.
#pragma once

#include <variant>

#include "necrocode/llm/cassette.hpp"
#include "necrocode/llm/replay_dialects.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::llm {

using RecordedAnswer = decltype(CassetteEntry::answer);

/// A completion, whole or streamed, as a CompletionAnswer; a stream that ended without its finish
/// as a truncate drill with what had come. Whatever those words cannot tell (errors, refusals,
/// several choices, kinds of content that only one dialect has) as the RawAnswer it is, with the
/// headers that tell of its content, of limits and of trying again. Never throws for what stands
/// in the answer. Nothing is masked here.
RecordedAnswer read_answer(ModelApi api, const net::HttpResponse& answer);

}  // namespace necrocode::llm
