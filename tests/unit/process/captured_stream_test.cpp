#include "necrocode/process/captured_stream.hpp"

#include <gtest/gtest.h>

#include <random>

namespace necrocode::process {
namespace {

TEST(StreamCapture, AnySplitKeepsTheSameHeadAndTail) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + i % 26);
  std::mt19937 random(42);
  for (std::size_t size = 0; size <= text.size(); size += 7) {
    StreamCapture capture(20, 30);
    for (std::size_t at = 0; at < size;) {
      const std::size_t count = std::min<std::size_t>(1 + random() % 50, size - at);
      capture.add(std::string_view(text).substr(at, count));
      at += count;
    }
    const CapturedStream stream = capture.take();
    const std::string head = text.substr(0, std::min<std::size_t>(20, size));
    const std::size_t rest = size - head.size();
    const std::size_t tail = std::min<std::size_t>(30, rest);
    EXPECT_EQ(stream.head, head);
    EXPECT_EQ(stream.tail, text.substr(size - tail, tail)) << size;
    EXPECT_EQ(stream.total_bytes, size);
    EXPECT_EQ(stream.truncated(), size > 50);
  }
}

TEST(StreamCapture, NoRoomKeepsOnlyTheCount) {
  StreamCapture capture(0, 0);
  capture.add("hello");
  const CapturedStream stream = capture.take();
  EXPECT_EQ(stream.total_bytes, 5U);
  EXPECT_EQ(stream.text(), "\n… 5 bytes left out …\n");
}

}  // namespace
}  // namespace necrocode::process
