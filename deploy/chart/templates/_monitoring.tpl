{{/* How a ServiceMonitor and a PodMonitor scrape: the same but for its place. */}}
{{- define "outlit-proxy.scrape" -}}
port: ops
path: /metrics
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
{{- with .relabelings }}
relabelings: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
