#include "necrocode/base/secret_forms.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include "necrocode/base/base64.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

std::string url_safe(std::string text) {
  std::replace(text.begin(), text.end(), '+', '-');
  std::replace(text.begin(), text.end(), '/', '_');
  return text;
}

/// `secret` as it appears in the base64 of a text where it stands at a byte `offset` modulo 3: what
/// does not depend on its neighbours, and, for the end of a text, with its last character and
/// padding.
void add_base64(std::string_view secret, std::size_t offset, std::set<std::string>& forms) {
  const std::string encoded = base64_encode(std::string(offset, '\0').append(secret));
  const std::size_t first = (offset * 8 + 5) / 6;                // the first without a bit of ours
  const std::size_t certain = (offset + secret.size()) * 8 / 6;  // whole characters
  const std::size_t unpadded = std::min(encoded.find('='), encoded.size());
  for (const std::size_t end : {certain, unpadded, encoded.size()}) {
    const std::string form = encoded.substr(first, end - first);
    forms.insert(form);
    forms.insert(url_safe(form));
  }
}

struct UrlEncoder {
  std::string_view kept;  ///< as it is, beside letters and digits
  bool space_as_plus = false;
};
constexpr std::array kUrlEncoders = {
    UrlEncoder{"-._~"},                  // RFC 3986 section 2.3
    UrlEncoder{"-._~!*'()"},             // JavaScript's encodeURIComponent
    UrlEncoder{"-._~!*'();/?:@&=+$,#"},  // JavaScript's encodeURI
    UrlEncoder{"-._~/"},                 // Python's quote
    UrlEncoder{"-._~", true},            // Python's quote_plus, Go's QueryEscape
    UrlEncoder{"-._*", true},            // forms (WHATWG URL section 5.2), Java's URLEncoder
    UrlEncoder{"-._", true},             // PHP's urlencode
};

std::string url_encode(std::string_view text, const UrlEncoder& encoder,
                       std::string_view hex_digits) {
  std::string out;
  for (const char c : text) {
    if (c == ' ' && encoder.space_as_plus) {
      out += '+';
    } else if (is_ascii_alnum(c) || encoder.kept.find(c) != std::string_view::npos) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', hex_digits[byte >> 4], hex_digits[byte & 15]};
    }
  }
  return out;
}

std::string json_body(std::string_view secret) {
  const std::string quoted = Json(secret).dump();
  return quoted.substr(1, quoted.size() - 2);
}

/// With everything outside ASCII, and what `html` names, as \uXXXX (as encoders for scripts do).
std::string json_ascii(std::string_view body, bool html) {
  std::string out;
  const auto unit = [&out](unsigned code) {
    std::array<char, 8> text{};
    std::snprintf(text.data(), text.size(), "\\u%04x", code & 0xffffU);
    out += text.data();
  };
  for (std::size_t i = 0; i < body.size();) {
    const auto lead = static_cast<unsigned char>(body[i]);
    if (lead < 0x80) {
      const bool escape = html && (lead == '<' || lead == '>' || lead == '&');
      if (escape) unit(lead);
      if (!escape) out += body[i];
      ++i;
      continue;
    }
    const std::size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;  // dump() made it well-formed
    unsigned code = lead & (0xffU >> (size + 1));
    for (std::size_t k = 1; k < size && i + k < body.size(); ++k) {
      code = code << 6 | (static_cast<unsigned char>(body[i + k]) & 0x3fU);
    }
    if (code >= 0x10000) {
      unit(0xd800U + ((code - 0x10000U) >> 10));
      unit(0xdc00U + ((code - 0x10000U) & 0x3ffU));
    } else {
      unit(code);
    }
    i += size;
  }
  return out;
}

std::string xml_escape(std::string_view text, std::string_view quote, std::string_view apostrophe) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += quote;
        break;
      case '\'':
        out += apostrophe;
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace

void add_secret_forms(std::string_view secret, std::set<std::string>& forms) {
  forms.insert(std::string(secret));
  for (const std::size_t offset : {0, 1, 2}) add_base64(secret, offset, forms);

  for (const UrlEncoder& encoder : kUrlEncoders) {
    forms.insert(url_encode(secret, encoder, "0123456789ABCDEF"));
    forms.insert(url_encode(secret, encoder, "0123456789abcdef"));
  }
  const std::string json = json_body(secret);
  for (const std::string& form : {json, replace_all(json, "/", "\\/")}) {
    forms.insert(form);
    forms.insert(json_ascii(form, false));
    forms.insert(json_ascii(form, true));
  }
  forms.insert(xml_escape(secret, "&quot;", "&apos;"));
  forms.insert(xml_escape(secret, "&quot;", "&#39;"));
  forms.insert(xml_escape(secret, "&#34;", "&#39;"));
  forms.insert(xml_escape(secret, "&quot;", "&#x27;"));
  forms.insert(xml_escape(secret, "\"", "'"));

  std::string hex = to_hex(secret);
  forms.insert(hex);
  std::transform(hex.begin(), hex.end(), hex.begin(), [](char c) {
    return c >= 'a' && c <= 'f' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  forms.insert(hex);
}

}  // namespace necrocode
