#include "password.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <wctype.h>

void password_digest(struct value password, struct digest *ret_digest)
{
	static EVP_MD *sha256; /* fetched once: the fetch costs more than the digest */
	if (!sha256)
		sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	EVP_Digest(password.data, password.size, ret_digest->octets, NULL, sha256, NULL);
	ret_digest->set = true;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return a->set && b->set && !CRYPTO_memcmp(a->octets, b->octets, sizeof a->octets);
}

static char *put_utf8(char *out, uint32_t code)
{
	if (code < 0x80) {
		*out++ = (char)code;
		return out;
	}
	unsigned more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
	static const uint8_t leads[] = { 0, 0xc0, 0xe0, 0xf0 };
	*out++ = (char)(leads[more] | code >> 6 * more);
	while (more--)
		*out++ = (char)(0x80 | (code >> 6 * more & 0x3f));
	return out;
}

enum unquote password_unquote(struct arena *arena, struct value octets, struct value *ret_password, size_t *ret_units)
{
	const uint8_t *in = (const uint8_t *)octets.data;
	if (octets.size % 2)
		return UNQUOTE_ODD;
	if (octets.size < 4 || in[0] != '"' || in[1] || in[octets.size - 2] != '"' || in[octets.size - 1])
		return UNQUOTE_NO_QUOTES;
	size_t units = octets.size / 2 - 2;
	char *text = arena_take(arena, units * 3 + 1), *out = text;
	for (size_t i = 1; i <= units; i++) {
		uint32_t code = in[2 * i] | (uint32_t)in[2 * i + 1] << 8;
		if (code >= 0xd800 && code < 0xdc00 && i < units) {
			uint32_t low = in[2 * i + 2] | (uint32_t)in[2 * i + 3] << 8;
			if (low >= 0xdc00 && low < 0xe000) {
				code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
				i++;
			}
		}
		out = put_utf8(out, code);
	}
	*out = 0;
	*ret_password = (struct value){ text, (size_t)(out - text) };
	*ret_units = units;
	return UNQUOTE_OK;
}

static bool contains(struct value haystack, struct value needle)
{
	return memmem(haystack.data, haystack.size, needle.data, needle.size);
}

/* Delimiters of display names: comma, period, dash, underscore, space, pound sign, tab; tokens of fewer than three characters do not count. */
static bool contains_name(struct arena *arena, const struct account *account, struct value folded)
{
	if (strlen(account->sam) >= 3 && contains(folded, text_fold(arena, value_of(account->sam))))
		return true;
	const char *at = account->display_name ? text_fold(arena, value_of(account->display_name)).data : "";
	while (*at) {
		size_t size = strcspn(at, ",.-_ #\t"), characters = 0;
		for (const char *next = at; next < at + size; characters++)
			text_next(&next, at + size);
		if (characters >= 3 && contains(folded, (struct value){ at, size }))
			return true;
		at += size;
		at += strspn(at, ",.-_ #\t");
	}
	return false;
}

static unsigned kinds(struct value password)
{
	bool upper = false, lower = false, digit = false, special = false, other = false;
	for (const char *at = password.data, *end = at + password.size; at < end;) {
		uint32_t code = text_next(&at, end);
		if (code >= '0' && code <= '9')
			digit = true;
		else if (code < 0x80 && code > 0x20 && code != 0x7f && !((code | 0x20) >= 'a' && (code | 0x20) <= 'z'))
			special = true;
		else if (iswupper((wint_t)code))
			upper = true;
		else if (iswlower((wint_t)code))
			lower = true;
		else if (code >= 0x80 && iswalpha((wint_t)code))
			other = true;
	}
	return (unsigned)upper + lower + digit + special + other;
}

bool password_acceptable(struct forest *forest, struct arena *arena, const struct policy *policy, const struct account *account, struct value password, size_t units)
{
	if (units < policy->min_length || units > 256)
		return false;
	struct value folded = text_fold(arena, password);
	if (policy->complexity && (kinds(password) < 3 || contains_name(arena, account, folded)))
		return false;
	for (size_t i = 0; i < forest->filter_count; i++)
		if (contains(folded, value_of(forest->filter_words[i])))
			return false;
	return true;
}

bool password_in_history(const struct account *account, const struct policy *policy, const struct digest *digest)
{
	for (unsigned i = 0; i < policy->history; i++)
		if (digest_equal(&account->history[i], digest))
			return true;
	return false;
}

bool password_too_young(const struct account *account, const struct policy *policy, int64_t now)
{
	return account->password_last_set && now < account->password_last_set + policy->min_age;
}

void password_store(struct account *account, const struct digest *digest, int64_t now)
{
	memmove(account->history + 1, account->history, sizeof account->history - sizeof account->history[0]);
	account->history[0] = account->password = *digest;
	account->password_last_set = now;
	account->password_writes++;
}
