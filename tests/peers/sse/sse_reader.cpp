// sse_reader: EventStreamReader on streams from stdin, for tests/peers/sse. A stream is a line with
// the number of its pieces, then for each piece a line with its bytes' number and the bytes. For
// each stream one line of JSON: {"events":[[id,name,data],…],"retry":MS or null,"refused":bool},
// strings in hexadecimal digits, for they need not be text.
#include <cstdio>
#include <iostream>
#include <string>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/event_stream.hpp"

namespace {

using necrocode::to_hex;
using necrocode::net::EventStreamReader;
using necrocode::net::StreamEvent;

/// The number that is the next line of stdin; false at the end.
bool read_count(std::size_t& count) {
  std::string line;
  if (!std::getline(std::cin, line)) return false;
  count = std::stoul(line);
  return true;
}

std::string read_piece() {
  std::size_t size = 0;
  if (!read_count(size)) throw std::runtime_error("a piece is missing");
  std::string piece(size, '\0');
  if (!std::cin.read(piece.data(), static_cast<std::streamsize>(size))) {
    throw std::runtime_error("a piece is cut off");
  }
  return piece;
}

std::string answer(std::size_t pieces) {
  EventStreamReader reader;
  std::string events;
  bool refused = false;
  const auto sink = [&](const StreamEvent& event) {
    events += events.empty() ? "[\"" : ",[\"";
    events +=
        to_hex(event.id) + "\",\"" + to_hex(event.name) + "\",\"" + to_hex(event.data) + "\"]";
  };
  for (; pieces > 0; --pieces) {
    const std::string piece = read_piece();
    try {
      if (!refused) reader.take(piece, sink);
    } catch (const necrocode::InvalidResponse&) {
      refused = true;
    }
  }
  const auto retry = reader.retry();
  return "{\"events\":[" + events +
         "],\"retry\":" + (retry ? std::to_string(retry->count()) : "null") +
         ",\"refused\":" + (refused ? "true" : "false") + "}\n";
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  try {
    for (std::size_t pieces = 0; read_count(pieces);) std::cout << answer(pieces);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sse_reader: %s\n", error.what());
    return 2;
  }
  return 0;
}
