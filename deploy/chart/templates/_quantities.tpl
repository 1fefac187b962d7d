{{/*
How the chart reads what the proxy and Kubernetes write as text, where it must compare.
*/}}

{{/* Whole seconds, rounded up, of a duration of the proxy: "250ms", "25s", "5m", "1h". */}}
{{- define "outlit-proxy.seconds" -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $length := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit -}}
{{- mulf (trimSuffix $unit . | float64) $length | ceil | int64 -}}
{{- end }}

{{/* Bytes of a size of the proxy ("4GB", "10MiB", 1500) or a quantity of Kubernetes ("10Gi", "512M"). */}}
{{- define "outlit-proxy.bytes" -}}
{{- $text := . -}}
{{- if not (kindIs "string" .) -}}
{{- $text = int64 . | toString -}}
{{- end -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $sizes := dict "" 1.0 "k" 1e3 "m" 1e6 "g" 1e9 "t" 1e12 "p" 1e15 "ki" 1024.0 "mi" 1048576.0 "gi" 1073741824.0 "ti" 1099511627776.0 "pi" 1125899906842624.0 -}}
{{- mulf (trimSuffix $unit $text | float64) (get $sizes ($unit | lower | trimSuffix "b")) | int64 -}}
{{- end }}

{{/* The ports that a network policy must let through to the Redis of redis.url, as a JSON list. */}}
{{- define "outlit-proxy.redisPorts" -}}
{{- $url := .Values.redis.url -}}
{{- $sentinel := hasPrefix "redis+sentinel:" $url -}}
{{- $ports := list -}}
{{- range regexReplaceAll "^[a-z+]+://([^@/]*@)?" $url "" | regexFind "^[^/?]*" | splitList "," -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default (ternary "26379" "6379" $sentinel) | int) -}}
{{- end -}}
{{- /* Sentinels name servers whose ports stand nowhere. */ -}}
{{- if $sentinel -}}{{- $ports = append $ports 6379 -}}{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end }}

{{/* The port of upstream.url. */}}
{{- define "outlit-proxy.upstreamPort" -}}
{{- $url := dig "upstream" "url" "https://app.outlit.ai" .Values.config -}}
{{- regexFind ":[0-9]+" (regexFind "^https?://[^/]*" $url | regexFind "[^\\]]*$") | trimPrefix ":" | default (ternary "80" "443" (hasPrefix "http:" $url)) -}}
{{- end }}

{{/* From the order to stop until the kubelet may kill: the pause before it, delivery.grace, and what is closed after. */}}
{{- define "outlit-proxy.leastTermination" -}}
{{- $grace := dig "delivery" "grace" "25s" .Values.config -}}
{{- add (int .Values.preStopSleepSeconds) (include "outlit-proxy.seconds" $grace | int) 5 -}}
{{- end }}
