"""The laptop demo: a Nacos double, a provider, a consumer with a cached list, three rolls."""
