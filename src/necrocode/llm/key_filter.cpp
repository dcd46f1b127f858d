#include "necrocode/llm/key_filter.hpp"

#include <algorithm>
#include <set>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/secret_forms.hpp"

namespace necrocode::llm {

HiddenKeys::HiddenKeys(const std::vector<const Secret*>& keys) {
  std::set<std::string> forms;
  for (const Secret* key : keys) {
    if (key->reveal().size() >= limits::kSecretBytesMin) add_secret_forms(key->reveal(), forms);
  }
  while (!forms.empty()) {
    forms_.push_back(std::move(forms.extract(forms.begin()).value()));
    first_.set(static_cast<unsigned char>(forms_.back().front()));
  }
}

HiddenKeys::~HiddenKeys() {
  for (std::string& form : forms_) wipe(form);
}

HiddenKeys::Match HiddenKeys::match(std::string_view text) const {
  Match match;
  if (!first_.test(static_cast<unsigned char>(text.front()))) return match;
  for (const std::string& form : forms_) {
    if (text.starts_with(form)) {
      match.size = std::max(match.size, form.size());
    } else if (std::string_view(form).starts_with(text)) {
      match.may_grow = true;
    }
  }
  return match;
}

std::string HiddenKeys::hide(std::string_view text) const {
  KeyFilter filter({std::shared_ptr<void>(), this});
  std::string hidden = filter.take(text);
  return hidden += filter.finish();
}

std::string KeyFilter::take(std::string_view bytes) {
  held_.append(bytes);
  return advance(false);
}

std::string KeyFilter::finish() {
  return advance(true);
}

std::string KeyFilter::advance(bool final) {
  std::string out;
  std::size_t at = 0;
  while (at < held_.size()) {
    const HiddenKeys::Match match = keys_->match(std::string_view(held_).substr(at));
    if (match.may_grow && !final) break;
    if (match.size > 0) {
      out += "***";
      at += match.size;
    } else {
      out += held_[at++];
    }
  }
  held_.erase(0, at);
  return out;
}

}  // namespace necrocode::llm
