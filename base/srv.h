/* srv: the answer to a lookup of SRV records (RFC 2782), read from a DNS message, and the weighted choice among records of one priority. Pure. */
#ifndef BASE_SRV_H
#define BASE_SRV_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/status.h"

enum { SRV_MAX = 64 };
struct srv {
	uint16_t priority, weight, port;
	char target[256];              /* a host name in lower case, without the last dot */
};
struct srv_answer {
	size_t count;
	bool cut;                      /* there were more than SRV_MAX, which are left out */
	uint32_t ttl_s;                /* the least of all records', a CNAME's on the way too */
	struct srv items[SRV_MAX];     /* as they came: neither sorted by priority nor chosen by weight */
};

/* `message`: a DNS answer (RFC 1035 section 4). A CNAME that the server followed is followed. "." as the target (no such service) and targets that are no host names are left out.
 * STATUS_LOCAL_INPUT where it is malformed. */
enum status srv_parse(struct bytes message, struct srv_answer *ret_answer) MUST_USE;
/* The least key is chosen first, then the next: with `random` uniform and kept per record, that draws without replacement in proportion to the weights, as RFC 2782's running sums do;
 * and a record keeps its place while the answer does not change. A weight of 0 has a very small chance. */
double srv_key(uint16_t weight, uint32_t random);

#endif
