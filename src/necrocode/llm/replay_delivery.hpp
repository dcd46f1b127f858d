// How a replay server's answers go over the wire: whole or streamed, well or, in a drill, wrong.
#pragma once

#include "necrocode/llm/cassette.hpp"
#include "necrocode/llm/replay_dialects.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::llm {

/// As the question wants it. No thread waits between the pieces of a streamed one.
net::Response deliver(ModelApi api, const CompletionAnswer& answer, const Question& question);
/// As it stands, whatever was asked.
net::Response deliver(const RawAnswer& answer);
/// `answer`, going wrong.
net::Response deliver(ModelApi api, const DrillAnswer& drill, const CompletionAnswer& answer,
                      const Question& question);
/// An error in the API's own shape.
net::Response refuse(ModelApi api, const SpokenError& error);

}  // namespace necrocode::llm
