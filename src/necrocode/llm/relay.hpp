// Relay: an answer on its way from the thread that receives it to a feed's connection. Bounded: who
// receives waits while the client does not read.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "necrocode/net/http_server.hpp"

namespace necrocode::llm {

/// Thread-safe; one thread pushes.
class Relay {
 public:
  static constexpr std::size_t kBytesMax = 256 * 1024;

  /// Waits while kBytesMax are on their way. False when nobody takes them any more.
  bool push(std::string_view bytes);
  void finish();   ///< the answer is whole
  void fail();     ///< it broke off: the client's connection is closed after what was pushed
  void abandon();  ///< nobody takes it any more

  // net::FeedBody's functions.
  void listen(std::function<void()> news);
  net::FeedBody::Piece next();

 private:
  enum class End { kNone, kWhole, kBroken };
  void end(End how);
  std::mutex mutex_;
  std::condition_variable taken_;
  std::string waiting_;
  std::function<void()> news_;
  End end_ = End::kNone;
  bool abandoned_ = false;
};

}  // namespace necrocode::llm
