#include "agent/account.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* MS-DTYP 2.4.2.2: revision, count, six octets of authority in big-endian order, then the sub-authorities in little-endian order. */
enum { SID_REVISION = 1, SID_HEADER = 8, SID_SUBAUTHORITIES_MAX = 15, ENTRY_SIZE = 17 };

void account_clear(struct account *account)
{
	if (!account)
		return;
	free(account->dn);
	free(account->sam_account_name);
	free(account->user_principal_name);
	free(account->display_name);
	free(account->uid);
	free(account->groups);
	free(account->policy.source_name);
	memset(account, 0, sizeof *account);
}

static uint64_t authority(const struct sid *sid)
{
	uint64_t value = 0;
	for (unsigned i = 2; i < SID_HEADER; i++)
		value = value << 8 | sid->octets[i];
	return value;
}

static uint32_t sub_authority(const struct sid *sid, unsigned index)
{
	const uint8_t *at = sid->octets + SID_HEADER + 4 * index;
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static unsigned sub_authorities(const struct sid *sid)
{
	return sid->size < SID_HEADER ? 0 : (sid->size - SID_HEADER) / 4u;
}

void sid_format(const struct sid *sid, char out[SID_TEXT_MAX])
{
	out[0] = '\0';
	if (sid_is_entry(sid)) {
		guid_format(sid->octets + 1, out);
		return;
	}
	if (sid->size < SID_HEADER)
		return;
	uint64_t top = authority(sid);
	/* MS-DTYP 2.4.2.1: an authority of 2^32 or more is written in hexadecimal. */
	int used = top >> 32 ? snprintf(out, SID_TEXT_MAX, "S-1-0x%012" PRIx64, top) : snprintf(out, SID_TEXT_MAX, "S-1-%" PRIu64, top);
	for (unsigned i = 0; i < sub_authorities(sid); i++)
		used += snprintf(out + used, SID_TEXT_MAX - (size_t)used, "-%" PRIu32, sub_authority(sid, i));
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 16;
}

/* A number without sign, blanks or leading zeros, not above `most`. */
static bool read_number(const char **at, unsigned radix, uint64_t most, uint64_t *ret_value)
{
	const char *from = *at;
	uint64_t value = 0;
	for (; digit_value(**at) < (int)radix; (*at)++) {
		value = value * radix + (unsigned)digit_value(**at);
		if (value > most)
			return false;
	}
	*ret_value = value;
	return *at > from && (radix == 16 || *from != '0' || *at == from + 1);
}

enum status sid_parse(const char *text, struct sid *ret_sid)
{
	memset(ret_sid, 0, sizeof *ret_sid);
	struct sid sid = { .size = SID_HEADER, .octets = { SID_REVISION } };
	if (!text || (text[0] != 'S' && text[0] != 's') || strncmp(text + 1, "-1-", 3))
		return STATUS_LOCAL_INPUT;
	const char *at = text + 4;
	bool hex = at[0] == '0' && (at[1] == 'x' || at[1] == 'X');
	uint64_t number;
	at += hex ? 2 : 0;
	if (!read_number(&at, hex ? 16 : 10, 0xffffffffffff, &number))
		return STATUS_LOCAL_INPUT;
	for (unsigned i = 0; i < 6; i++)
		sid.octets[2 + i] = (uint8_t)(number >> (40 - 8 * i));
	while (*at == '-') {
		at++;
		if (sid.octets[1] == SID_SUBAUTHORITIES_MAX || !read_number(&at, 10, UINT32_MAX, &number))
			return STATUS_LOCAL_INPUT;
		for (unsigned i = 0; i < 4; i++)
			sid.octets[sid.size + i] = (uint8_t)(number >> 8 * i);
		sid.size = (uint8_t)(sid.size + 4);
		sid.octets[1]++;
	}
	if (*at || !sid.octets[1])
		return STATUS_LOCAL_INPUT;
	*ret_sid = sid;
	return STATUS_OK;
}

enum status sid_from_octets(struct bytes octets, struct sid *ret_sid)
{
	memset(ret_sid, 0, sizeof *ret_sid);
	if (octets.size < SID_HEADER + 4 || octets.data[0] != SID_REVISION || octets.data[1] > SID_SUBAUTHORITIES_MAX ||
	    octets.size != SID_HEADER + 4u * octets.data[1])
		return STATUS_LOCAL_INPUT;
	ret_sid->size = (uint8_t)octets.size;
	memcpy(ret_sid->octets, octets.data, octets.size);
	return STATUS_OK;
}

void sid_from_entry(const uint8_t guid[16], struct sid *ret_sid)
{
	*ret_sid = (struct sid){ .size = ENTRY_SIZE };
	memcpy(ret_sid->octets + 1, guid, ENTRY_SIZE - 1);
}

bool sid_is_entry(const struct sid *sid)
{
	return sid->size == ENTRY_SIZE && sid->octets[0] == 0;
}

bool sid_equal(const struct sid *a, const struct sid *b)
{
	/* Two unknown ones are not the same one. */
	return a->size && a->size == b->size && !memcmp(a->octets, b->octets, a->size);
}

uint32_t sid_rid(const struct sid *sid)
{
	unsigned count = sid_is_entry(sid) ? 0 : sub_authorities(sid);
	return count ? sub_authority(sid, count - 1) : 0;
}

bool sid_in_domain(const struct sid *sid, const struct sid *domain)
{
	/* Octet 1 is the count, one higher in `sid`. */
	return domain->size >= SID_HEADER && sid->size == domain->size + 4 && sid->octets[0] == domain->octets[0] &&
	       !memcmp(sid->octets + 2, domain->octets + 2, domain->size - 2u);
}
