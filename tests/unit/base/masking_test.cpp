#include "necrocode/base/masking.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/base64.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "unit/base/masking_fixture.hpp"

namespace necrocode {
namespace {

using test::masker_for;
using testing::HasSubstr;
using testing::Not;

/// Token-like texts are put together here, so that no scanner takes this file for a leak.
std::string token(std::string_view prefix, std::size_t size) {
  constexpr std::string_view kAlphabet = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7";
  std::string text(prefix);
  for (std::size_t i = 0; i < size; ++i) text += kAlphabet[i % kAlphabet.size()];
  return text;
}

std::string in_pieces(const Masker& masker, std::string_view text, std::size_t size) {
  MaskingStream stream(masker);
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += size) out += stream.push(text.substr(i, size));
  return out + stream.finish();
}

void expect_same_over_every_split(const Masker& masker, const std::string& text) {
  const std::string whole = masker.mask(text);
  MaskingStream stream(masker);
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    std::string out = stream.push(text.substr(0, cut));
    out += stream.push(text.substr(cut));
    out += stream.finish();
    ASSERT_EQ(out, whole) << "cut at " << cut << " of: " << text;
  }
  for (const std::size_t size : {1, 2, 3, 7}) ASSERT_EQ(in_pieces(masker, text, size), whole);
}

const std::string kSecret = "p4ss/w0rd+<\"&'>=x?";

TEST(Masker, RawSecretIsHiddenAndTheRestKept) {
  const Masker masker = masker_for({kSecret});
  EXPECT_EQ(masker.mask("a " + kSecret + " b"), "a *** b");
  EXPECT_EQ(masker.mask("nothing here"), "nothing here");
  EXPECT_TRUE(masker.contains_secret("x" + kSecret));
  EXPECT_FALSE(masker.contains_secret(kSecret.substr(1)));
  EXPECT_EQ(masker.mask(""), "");
}

TEST(Masker, EncodedFormsAreHidden) {
  const Masker masker = masker_for({kSecret});
  const auto hidden = [&masker](const std::string& form) {
    EXPECT_EQ(masker.mask("<" + form + ">"), "<***>") << form;
  };
  hidden(percent_encode(kSecret));
  hidden("p4ss%2fw0rd%2b%3c%22%26%27%3e%3dx%3f");
  const std::string json = Json(kSecret).dump();
  hidden(json.substr(1, json.size() - 2));
  hidden("p4ss\\/w0rd+<\\\"&'>=x?");
  hidden("p4ss/w0rd+\\u003c\\\"\\u0026'\\u003e=x?");
  hidden("p4ss/w0rd+&lt;&quot;&amp;&apos;&gt;=x?");
  hidden("p4ss/w0rd+&lt;\"&amp;'&gt;=x?");
  hidden("p4ss/w0rd+&lt;&#34;&amp;&#39;&gt;=x?");
  hidden(to_hex(kSecret));
  hidden("703473732F773072642B3C2226273E3D783F");
}

/// What each encoder leaves as it is; expected texts are of the encoders themselves.
TEST(Masker, UrlEncodedFormsOfEveryEncoderAreHidden) {
  const std::string secret = "k~1 !*'()/;?:@&=+$,#<\xc3\xb6";
  const Masker masker = masker_for({secret});
  for (const char* form : {
           "k~1%20%21%2A%27%28%29%2F%3B%3F%3A%40%26%3D%2B%24%2C%23%3C%C3%B6",  // RFC 3986
           "k~1%20!*'()%2F%3B%3F%3A%40%26%3D%2B%24%2C%23%3C%C3%B6",            // encodeURIComponent
           "k~1%20!*'()/;?:@&=+$,#%3C%C3%B6",                                  // encodeURI
           "k~1%20%21%2A%27%28%29/%3B%3F%3A%40%26%3D%2B%24%2C%23%3C%C3%B6",    // urllib quote
           "k~1+%21%2A%27%28%29%2F%3B%3F%3A%40%26%3D%2B%24%2C%23%3C%C3%B6",    // urllib quote_plus
           "k%7E1+%21*%27%28%29%2F%3B%3F%3A%40%26%3D%2B%24%2C%23%3C%C3%B6",    // URLSearchParams
           "k%7E1+%21%2A%27%28%29%2F%3B%3F%3A%40%26%3D%2B%24%2C%23%3C%C3%B6",  // PHP urlencode
       }) {
    std::string lower(form);
    for (std::size_t i = 0; i + 2 < lower.size(); ++i) {
      if (lower[i] != '%') continue;
      lower[i + 1] = ascii_lower(lower[i + 1]);
      lower[i + 2] = ascii_lower(lower[i + 2]);
    }
    EXPECT_EQ(masker.mask("<" + std::string(form) + ">"), "<***>") << form;
    EXPECT_EQ(masker.mask("<" + lower + ">"), "<***>") << lower;
  }
}

TEST(Masker, NonAsciiSecretIsHiddenAsJsonEscapes) {
  const Masker masker = masker_for({"pässwörd-\xf0\x9f\x94\x91"});
  EXPECT_EQ(masker.mask("[p\\u00e4ssw\\u00f6rd-\\ud83d\\udd11]"), "[***]");
}

TEST(Masker, Base64IsHiddenAtEveryAlignmentAndInBothAlphabets) {
  const std::string secret = "s3cret?>?>tokenvalue";
  const Masker masker = masker_for({secret});
  for (std::size_t before = 0; before < 7; ++before) {
    for (std::size_t after = 0; after < 4; ++after) {
      const std::string plain = std::string(before, 'u') + secret + std::string(after, 'v');
      const std::string encoded = base64_encode(plain);
      std::string safe = replace_all(replace_all(encoded, "+", "-"), "/", "_");
      while (safe.ends_with('=')) safe.pop_back();
      for (const std::string& text : {encoded, safe}) {
        const std::string masked = masker.mask(text);
        EXPECT_THAT(masked, HasSubstr("***")) << text;
        // At most the characters that the secret shares with its neighbours are left of it.
        EXPECT_LE(masked.size(), 3 + (before + 2) / 3 * 4 + (after + 2) / 3 * 4 + 4) << masked;
      }
      expect_same_over_every_split(masker, "x " + encoded + " y");
    }
  }
}

TEST(Masker, OneSecretAPrefixOfAnotherHidesTheLongest) {
  const Masker masker = masker_for({"abcdefgh", "abcdefghijklmnop"});
  EXPECT_EQ(masker.mask("abcdefghijklmnop!"), "***!");
  EXPECT_EQ(masker.mask("abcdefghijklmno!"), "***ijklmno!");
}

TEST(Masker, OverlappingSecretsAreHiddenWhole) {
  const Masker masker = masker_for({"abcdefgh", "efghijkl", "ijklmnop"});
  EXPECT_EQ(masker.mask("<abcdefghijkl>"), "<***>");
  EXPECT_EQ(masker.mask("<abcdefghijklmnop>"), "<***>");
  expect_same_over_every_split(masker, "<abcdefghijklmnop> abcdefghabcdefgh <efghijkl");
}

TEST(Masker, SecretInsideAWellKnownShapeIsHiddenWhole) {
  const std::string secret = "abcdefgh12345678$%&rest-of-it";
  const Masker masker = masker_for({secret});
  EXPECT_EQ(masker.mask("Authorization: Bearer " + secret + "\n"), "Authorization: Bearer ***\n");
}

TEST(Masker, ColoursInsideASecretAreHiddenWithIt) {
  const Masker masker = masker_for({"tok-12345678"});
  EXPECT_EQ(masker.mask("a t\x1b[31mok-1234\x1b[0;1m5678\x1b[0m"), "a ***\x1b[0m");
  expect_same_over_every_split(masker, "a t\x1b[31mok-1234\x1b[0;1m5678\x1b[0m tok-12\x1b[31");
  EXPECT_EQ(masker.mask("t\x1bok-12345678"), "t\x1bok-12345678");
}

TEST(Masker, WellKnownShapesAreHidden) {
  const Masker masker;
  const auto hidden = [&masker](const std::string& text) {
    EXPECT_EQ(masker.mask("x=" + text + "\n"), "x=***\n") << text;
    EXPECT_EQ(masker.mask("\"" + text + "\""), "\"***\"") << text;
    expect_same_over_every_split(masker, "x=" + text + "\n");
  };
  for (const char* prefix : {"ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "sk-", "sk-ant-",
                             "xoxb-", "xoxp-", "npm_", "hf_"}) {
    hidden(token(prefix, 36));
  }
  hidden("AKIA" + std::string("ABCDEFGH12345678"));
  hidden(token("AIza", 35));
  hidden(token("eyJ", 20) + "." + token("eyJ", 30) + "." + token("", 43));
}

TEST(Masker, AuthorizationValuesAreHiddenAndTheirSchemeKept) {
  const Masker masker;
  EXPECT_EQ(masker.mask("Authorization: Bearer " + token("", 24)), "Authorization: Bearer ***");
  EXPECT_EQ(masker.mask("authorization: bearer " + token("", 24)), "authorization: bearer ***");
  EXPECT_EQ(masker.mask("'Authorization: Basic " + base64_encode("user:password") + "'"),
            "'Authorization: Basic ***'");
  EXPECT_EQ(masker.mask("Basic " + base64_encode("u:pw") + "."), "Basic ***.");
}

TEST(Masker, OrdinaryTextIsNotTakenForATokenShape) {
  const Masker masker;
  for (const char* text :
       {"the task-management-and-scheduling-of-things", "Basic authentication is used here",
        "sk-short", "sk-necrocode-0123456789abcdef0123456789abcdef", "Bearer YOUR_TOKEN_GOES_HERE",
        "a bearer of_good_news_for_everyone", "css .sk-fading-circle-container-large", "ghp_short",
        "MAKIAABCDEFGH12345678", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "-----", "AKIAabc"}) {
    EXPECT_EQ(masker.mask(text), text);
    expect_same_over_every_split(masker, text);
  }
}

TEST(Masker, PrivateKeyBlockIsHiddenWhole) {
  const Masker masker;
  std::string lines;
  for (int i = 0; i < 6; ++i) lines += token("", 64) + "\n";
  const std::string block = std::string("-----BEGIN RSA PRIV") + "ATE KEY-----\n" + lines +
                            "-----END RSA PRIV" + "ATE KEY-----";
  EXPECT_EQ(masker.mask("key:\n" + block + "\nafter"), "key:\n***\nafter");
  EXPECT_EQ(masker.mask(Json(block + "\nafter.").dump()), "\"***\\nafter.\"");
  expect_same_over_every_split(masker, "a " + block + " b");
  // A log that was cut in the middle of it.
  const std::string cut = block.substr(0, block.size() - 60);
  EXPECT_EQ(masker.mask("key: " + cut + "\n"), "key: ***\n");
  expect_same_over_every_split(masker, cut + "\n(end)");
}

TEST(Masker, PrivateKeyGivenLineByLineIsHiddenInAnyOrder) {
  const Masker masker = masker_for({token("AA", 62), token("BB", 62)});
  EXPECT_EQ(masker.mask(token("BB", 62) + "\n" + token("AA", 62)), "***\n***");
}

TEST(Masker, ShortOrMultiLineSecretIsRefused) {
  EXPECT_THROW(masker_for({"1234567"}), SecurityError);
  EXPECT_THROW(masker_for({""}), SecurityError);
  EXPECT_THROW(masker_for({"first line\nsecond line"}), SecurityError);
  EXPECT_THROW(masker_for({"first line\rsecond line"}), SecurityError);
  EXPECT_NO_THROW(masker_for({"12345678"}));
  try {
    masker_for({"hunter2"});
  } catch (const SecurityError& error) {
    EXPECT_THAT(error.what(), Not(HasSubstr("hunter2")));
  }
}

TEST(MaskingStream, AnySplitEqualsTheWhole) {
  const Masker masker = masker_for({kSecret, "abcdefgh", "abcdefghijklmnop", "aaaaaaaa"});
  const std::vector<std::string> texts = {
      kSecret + kSecret,
      "x" + base64_encode("user:" + kSecret) + "y",
      "aaaaaaaaaaaaaaaaaaaaaab",
      "aaaaaaabcdefghabcdefghijklmnoabcdefghijklmnop",
      "Bearer " + token("", 40) + kSecret + " Basic " + base64_encode("a:" + kSecret),
      token("sk-", 30) + "-" + kSecret,
      "p4ss/w0rd",
  };
  for (const std::string& text : texts) expect_same_over_every_split(masker, text);
}

TEST(MaskingStream, PassesOnAtOnceWhatCannotBeASecret) {
  const Masker masker = masker_for({"secret-value"});
  MaskingStream stream(masker);
  EXPECT_EQ(stream.push("hello world, sec"), "hello world, ");
  EXPECT_EQ(stream.push("ond"), "second");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push("secret-"), "");
  EXPECT_EQ(stream.push("value."), "***.");
}

TEST(MaskingStream, HoldsABoundedPartOfAnEndlessKeyBlock) {
  const Masker masker;
  MaskingStream stream(masker);
  std::size_t let_go = stream.push(std::string("-----BEGIN PRIV") + "ATE KEY-----\n").size();
  const std::string line = token("", 63) + "\n";
  std::size_t given = 0;
  for (; given < 4 * limits::kPemBytes; given += line.size()) let_go += stream.push(line).size();
  EXPECT_GT(let_go, 2 * limits::kPemBytes);
}

}  // namespace
}  // namespace necrocode
