#include "necrocode/base/ids.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>

#include "necrocode/base/check.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

// The kernel's random bytes, asked for by the buffer: a system call each time is what an id costs
// most. What was handed out is not kept. A child of fork() would hand out the same again, and must
// not be: ours are spawned and execute at once.
class RandomBytes {
 public:
  void fill(unsigned char* bytes, std::size_t count) {
    while (count > 0) {
      if (left_ == 0) refill();
      const std::size_t taken = std::min(count, left_);
      unsigned char* const from = buffer_.data() + (buffer_.size() - left_);
      std::copy_n(from, taken, bytes);
      std::fill_n(from, taken, static_cast<unsigned char>(0));
      left_ -= taken;
      bytes += taken;
      count -= taken;
    }
  }

 private:
  void refill() {
    ssize_t got = -1;
    // Up to 256 bytes come whole, and no signal interrupts (getrandom(2)).
    while (got < 0) {
      got = getrandom(buffer_.data(), buffer_.size(), 0);
      NECROCODE_CHECK(got == static_cast<ssize_t>(buffer_.size()) || errno == EINTR);
    }
    left_ = buffer_.size();
  }
  std::array<unsigned char, 256> buffer_{};
  std::size_t left_ = 0;
};

void fill_random(unsigned char* bytes, std::size_t count) {
  thread_local RandomBytes random;
  random.fill(bytes, count);
}

}  // namespace

bool is_plain_name(std::string_view text) {
  if (text.empty() || text.size() > limits::kNameBytes || !is_ascii_alnum(text.front()))
    return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return is_ascii_alnum(c) || c == '.' || c == '_' || c == '-'; });
}

std::optional<TaskId> TaskId::parse(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  return make(text.substr(0, colon), text.substr(colon + 1));
}

std::optional<TaskId> TaskId::make(std::string_view spec, std::string_view number) {
  if (!is_plain_name(spec) || !is_plain_name(number)) return std::nullopt;
  return TaskId(std::string(spec) + ":" + std::string(number), spec.size());
}

std::string random_hex(std::size_t bytes) {
  std::string raw(bytes, '\0');
  fill_random(reinterpret_cast<unsigned char*>(raw.data()), bytes);
  return to_hex(raw);
}

std::string uuid7() {
  std::array<unsigned char, 16> bytes{};
  fill_random(bytes.data(), bytes.size());
  const auto ms =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                     std::chrono::system_clock::now().time_since_epoch())
                                     .count());
  for (int i = 0; i < 6; ++i) {
    bytes[static_cast<std::size_t>(i)] = static_cast<unsigned char>(ms >> (40 - 8 * i));
  }
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x70);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  std::string hex = to_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  for (const std::size_t at : {20U, 16U, 12U, 8U}) hex.insert(at, 1, '-');
  return hex;
}

}  // namespace necrocode
