#include "necrocode/base/digest.hpp"

#include <gtest/gtest.h>

#include "necrocode/base/base64.hpp"

namespace necrocode {
namespace {

// FIPS 180-4's examples.
constexpr const char* kEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kMillionA =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, KnownValues) {
  EXPECT_EQ(sha256_hex(""), kEmpty);
  EXPECT_EQ(sha256_hex("abc"), kAbc);
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')), kMillionA);
}

TEST(Sha256, PiecesOfAnySizeGiveTheSame) {
  const std::string text(1000, 'a');
  for (const std::size_t size : {1U, 3U, 64U, 999U}) {
    Sha256 hash;
    for (std::size_t at = 0; at < text.size(); at += size) {
      hash.update(std::string_view(text).substr(at, size));
    }
    EXPECT_EQ(hash.finish_hex(), sha256_hex(text));
  }
}

TEST(Sha256, StartsAnewAfterFinishAndCanBeMoved) {
  Sha256 hash;
  hash.update("junk");
  EXPECT_EQ(hash.finish().size(), 32U);
  hash.update("ab");
  Sha256 moved(std::move(hash));
  moved.update("c");
  EXPECT_EQ(moved.finish_hex(), kAbc);
  moved = Sha256();
  EXPECT_EQ(moved.finish_hex(), kEmpty);
}

TEST(ContentDigestHeader, BothWays) {
  EXPECT_EQ(content_digest_header(kEmpty),
            "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
  EXPECT_EQ(sha256_from_digest_header(content_digest_header(kAbc)), kAbc);
}

TEST(ContentDigestHeader, FoundAmongOthersWithSpacesAndParameters) {
  const std::string abc = content_digest_header(kAbc);
  EXPECT_EQ(sha256_from_digest_header("sha-512=:AAAA:, " + abc), kAbc);
  EXPECT_EQ(sha256_from_digest_header(" " + abc + " , md5=:AAAA:"), kAbc);
  EXPECT_EQ(sha256_from_digest_header(abc + ";p=1"), kAbc);
  EXPECT_EQ(sha256_from_digest_header(content_digest_header(kEmpty) + ", " + abc), kAbc);
}

TEST(ContentDigestHeader, NothingWhenAbsentOrMalformed) {
  for (const char* field : {"", "sha-512=:AAAA:", "sha-256", "sha-256=", "sha-256=:", "sha-256=::",
                            "sha-256=:AAAA:", "sha-256=:!!!!:", "sha-256=47DEQpj8HBSa",
                            "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
                            "xsha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"}) {
    EXPECT_FALSE(sha256_from_digest_header(field)) << field;
  }
}

}  // namespace
}  // namespace necrocode
