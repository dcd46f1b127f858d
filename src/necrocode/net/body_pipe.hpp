// BodyPipe: a request's body on its way from the I/O thread, which never waits, to the handler,
// which does. Holds at most limits::kHttpStreamBufferBytes and one read; above it the socket is
// left alone.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/net/http1.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::net {

/// read() on the handler's thread; everything else on the I/O thread.
class BodyPipe final : public BodyReader {
 public:
  /// `wake` tells the I/O thread that has_room() may have become true. Called from
  /// read(), and never after close().
  BodyPipe(std::optional<std::uint64_t> declared_size, std::function<void()> wake);

  std::string read() override;
  std::optional<std::uint64_t> declared_size() const override { return declared_size_; }

  void push(std::string_view bytes);
  void finish();
  /// read() throws this once what was pushed before is used up.
  void fail(Refusal refusal);
  /// read() throws at once, and wakes nobody any more.
  void close();
  /// When false, the next read() that makes room will wake.
  bool has_room();

 private:
  const std::optional<std::uint64_t> declared_size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> wake_;
  std::deque<std::string> pieces_;
  std::size_t buffered_ = 0;
  bool finished_ = false;
  bool closed_ = false;
  bool wake_wanted_ = false;
  std::optional<Refusal> failure_;
};

}  // namespace necrocode::net
